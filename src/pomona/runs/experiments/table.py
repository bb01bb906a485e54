"""An experiment's results as text: Markdown that reads well on a terminal, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pomona.evaluation.scores import LOSS
from pomona.runs.experiments.record import AverageRecord, AverageScore, CellRecord, ExperimentRecord, SystemCost, SystemScore
from pomona.runs.record import SystemDescription
from pomona.runs.sizes import said_count, said_kinds, said_training, unlike

UNKNOWN = "-"

READING_OF_AVERAGES = (
    "Interval and p-values of the difference hold for other settings like these (Student's t over the settings' differences); p "
    "(Holm) is corrected for the systems of the table. Better and worse: settings with a significant difference, after Holm's "
    "correction over all settings and systems. Worst seed better: settings in which the system's worst seed is better than the "
    "worst seed of the system that it is compared with."
)
"""What intervals, p-values and counts of averages over settings answer."""


def table(found: ExperimentRecord) -> str:
    """The whole of `table.md`: a section for each setting, a table for each metric, what it cost, and which cells lack."""
    done = sum(cell.status == "done" for cell in found.cells)
    parts = [f"# {found.name}", f"{_counted(done, len(found.cells))} cells are done; seeds {', '.join(map(str, found.seeds))}."]
    for name, one in found.averages.items():
        parts.append(f"## average: {name}\n\nOver {len(one.settings)} settings: {_said_settings(one)}.")
        parts += [
            f"### {_title(metric)}\n\n{_aligned(_average_rows(scores, found.against, 4 if metric == LOSS else 2))}"
            for metric, scores in one.metrics.items()
        ]
        parts += [READING_OF_AVERAGES] if found.against is not None else []
    for name, setting in found.settings.items():
        parts += [f"## {name}"] if len(found.settings) > 1 else []
        parts += [
            f"### {_title(metric)}\n\n{_aligned(_score_rows(scores, found, 4 if metric == LOSS else 2))}"
            for metric, scores in setting.metrics.items()
        ]
        parts.append(f"### cost\n\n{_costs(setting.costs)}")
        began = [cell.path for cell in found.cells if cell.setting == name and cell.learned_nothing]
        parts += (
            [f"No controller round took place in {', '.join(began)}: the prune ratio there is the start value."] if began else []
        )
        parts += _tuned([cell for cell in found.cells if cell.setting == name and cell.tuned])
        parts += _made_of(setting.systems, found.against)
    parts.append(reading(found))
    lacking = [
        f"- {cell.path}: {cell.status}{f', {cell.error}' if cell.error else ''}" for cell in found.cells if cell.status != "done"
    ]
    parts += ["### cells without a result\n\n" + "\n".join(lacking)] if lacking else []
    parts.append(f"All cells together took {found.total_seconds:.1f} s.")
    return "\n\n".join(parts) + "\n"


def reading(found: ExperimentRecord) -> str:
    """What each interval and each p-value of an experiment answers."""
    draws = sorted({setting.draws for setting in found.settings.values()})
    text = (
        "Mean and sample deviation are over seeds. An interval or p-value that holds for new seeds covers other test examples and "
        "other seeds (other training examples, another start): it includes the variation between runs. One that holds for these "
        "runs covers other test examples only, because one seed does not show how seeds vary. Each draw of the bootstrap takes an "
        f"example with all its seeds, and with all examples of its group; {' or '.join(map(str, draws))} draws."
    )
    if found.against is not None:
        text += (
            f" Differences are relative to {found.against} on the same examples and seeds; p is that of a paired randomisation "
            "test, uncorrected and after Holm's correction over the systems of a table."
        )
    return f"{text} A dash means that a value is unknown or does not exist."


def _title(metric: str) -> str:
    return f"{metric} (nats per token, lower is better)" if metric == LOSS else metric


def _said_settings(one: AverageRecord) -> str:
    return ", ".join(f"{name} ({one.primary[name]})" for name in one.settings)


def _average_rows(scores: Mapping[str, AverageScore], against: str | None, digits: int) -> Iterator[Sequence[str]]:
    head = ["system", "settings", "mean"]
    more = [f"minus {against}", "95 % interval", "p", "p (Holm)", "better", "worse", "worst seed better"]
    yield head if against is None else head + more
    for system, one in scores.items():
        row, contrast = [system, str(one.settings), _number(one.mean, digits)], one.contrast
        if against is not None and contrast is None:
            row += [""] * len(more)
        elif contrast is not None:
            row += [f"{contrast.difference:+.{digits}f}", _span(contrast.low, contrast.high, digits, sign="+")]
            row += [_number(contrast.p_value, 4), _number(contrast.p_holm, 4)]
            row += [str(contrast.better), str(contrast.worse), str(contrast.better_worst_seed)]
        yield row


def _score_rows(scores: Mapping[str, SystemScore], found: ExperimentRecord, digits: int) -> Iterator[Sequence[str]]:
    head = ["system", "seeds", "mean", "deviation", "95 % interval"]
    head += [] if found.against is None else [f"minus {found.against}", "95 % interval", "p", "p (Holm)"]
    yield [*head, "holds for"]
    for system, one in scores.items():
        seeds = _counted(one.seeds, one.seeds + one.missing)
        row = [system, seeds, _number(one.mean, digits), _number(one.deviation, digits), _span(one.low, one.high, digits)]
        contrast = one.contrast
        if found.against is not None and contrast is None:
            row += [""] * 4
        elif contrast is not None:
            row += [f"{contrast.difference:+.{digits}f}", _span(contrast.low, contrast.high, digits, sign="+")]
            row += [f"{contrast.p_value:.4f}", f"{contrast.p_holm:.4f}"]
        yield [*row, _holds_for(one)]


def _holds_for(score: SystemScore) -> str:
    """What both intervals of a row hold for; the difference's apart where that is another."""
    if score.holds_for is None:
        return UNKNOWN
    said = {"new_seeds": "new seeds", "these_runs": "these runs"}
    contrast = score.contrast
    if contrast is None or contrast.holds_for == score.holds_for:
        return said[score.holds_for]
    return f"{said[score.holds_for]}; difference: {said[contrast.holds_for]}"


def _costs(costs: Mapping[str, SystemCost]) -> str:
    rows = [["system", "prune ratio", "sparsity", "training and probes, s"]]
    rows += [
        [system, _number(one.prune_ratio, 3), _number(one.sparsity, 3), _number(one.train_seconds, 1)]
        for system, one in costs.items()
    ]
    return _aligned(rows)


def _tuned(cells: Sequence[CellRecord]) -> list[str]:
    """What the dev set chose for each system that was tuned over a grid, and what the whole grid cost."""
    if not cells:
        return []
    rows = [["system", "seed", "learning rate", "epochs", "kept epoch", "runs", "tokens", "seconds"]]
    for cell in cells:
        chosen = next(point for point in cell.tuned if point.chosen)
        rows.append(
            [
                cell.system,
                str(cell.seed),
                UNKNOWN if chosen.learning_rate is None else f"{chosen.learning_rate:g}",
                UNKNOWN if chosen.epochs is None else str(chosen.epochs),
                UNKNOWN if chosen.kept_epoch is None else str(chosen.kept_epoch),
                str(sum(point.runs for point in cell.tuned)),
                said_count(sum(point.tokens or 0 for point in cell.tuned)),
                _number(sum(point.seconds or 0.0 for point in cell.tuned), 1),
            ]
        )
    note = (
        "The dev set chose each system's point of the grid (`evaluation.tune`). Runs, tokens and seconds are those of the "
        "whole grid. Where a training of fewer epochs is the first part of a longer one, the longer one stands for both."
    )
    return [f"### tuned on the dev set\n\n{_aligned(rows)}\n\n{note}"]


def _made_of(systems: Mapping[str, SystemDescription], against: str | None) -> list[str]:
    """What the systems are made of, and those that are not trained like the one that they are compared with."""
    described = {name: one for name, one in systems.items() if one.adapted}
    if not described:
        return []
    rows = [["system", "modules", "rank", "parameters trained", "stored", "training"]]
    rows += [
        [
            name,
            said_kinds(one.adapted or {}),
            str(one.rank),
            UNKNOWN if one.trained_parameters is None else said_count(one.trained_parameters),
            UNKNOWN if one.stored_parameters is None else said_count(one.stored_parameters),
            said_training(one.training or {}) or UNKNOWN,
        ]
        for name, one in described.items()
    ]
    trained = [name for name, one in described.items() if one.trained_parameters]
    reference = against if against in trained else next(iter(trained), None)
    notes = [] if reference is None else unlike(described, reference)
    return [f"### systems\n\n{_aligned(rows)}", *(["\n".join(f"- {note}" for note in notes)] if notes else [])]


def _counted(some: int, total: int) -> str:
    return str(total) if some == total else f"{some} of {total}"


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def _span(low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    """An interval; equal ends mean that the spread is unknown."""
    if low is None or high is None or low == high:
        return UNKNOWN
    return f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def _aligned(content: Iterable[Sequence[str]]) -> str:
    """A Markdown table with columns of one width; all but the first are set to the right."""
    rows = list(content)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))] for row in rows
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))
