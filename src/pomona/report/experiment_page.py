"""Write an experiment's page: averages over settings, scores, differences, cost, and what each interval answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from pomona.errors import InputError
from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.figures.forest import Bar, Forest
from pomona.report.figures.results import COLOURS
from pomona.report.figures.style import Figure
from pomona.report.html_file import fill, write_page
from pomona.report.wording import (
    MISSING,
    counted,
    duration,
    listed,
    lower_is_better,
    metric_label,
    p_value,
    percent,
    score,
    signed,
    span,
    unit,
)
from pomona.runs.experiments.csv_files import write_csv
from pomona.runs.experiments.over_settings import LEVEL, PRIMARY
from pomona.runs.experiments.recipe import RESULT
from pomona.runs.experiments.record import FORMAT_VERSION, AverageScore, Contrast, ExperimentRecord, SystemCost, SystemScore
from pomona.runs.experiments.table import READING_OF_AVERAGES, reading
from pomona.stand_ins import refuse_pointer

_HOLDS_FOR = {"new_seeds": "other seeds and examples", "these_runs": "other examples, these runs"}
"""What an interval holds for, in words."""


def is_experiment(folder: Path) -> bool:
    """Whether a folder is an experiment's that has results."""
    return (folder / RESULT).is_file()


def read_experiment_record(folder: Path) -> ExperimentRecord:
    """What `experiment.json` holds.

    Raises:
        InputError: it cannot be read, or has a newer format.
    """
    file = folder / RESULT
    try:
        text = file.read_text(encoding="utf-8-sig")
        refuse_pointer(file, text[:64].encode())
        raw = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=file) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        problem = f"this Pomona reads experiments up to format {FORMAT_VERSION}"
        raise InputError(problem, file=file, field="format_version", value=version, fix="Update Pomona")
    try:
        return ExperimentRecord.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise InputError(first["msg"], file=file, field=field, value=first["input"]) from error


def write_experiment_report(folder: Path | str) -> Path:
    """Write `report.html`, `scores.csv` and `systems.csv` into an experiment's folder.

    Args:
        folder: holds `experiment.json`.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be read or written.
    """
    path = Path(folder)
    found = read_experiment_record(path)
    write_csv(path, found)
    return write_page(path, render_experiment(found))


def render_experiment(found: ExperimentRecord) -> str:
    """The page as one HTML text; the same experiment gives the same text."""
    return fill(
        "experiment.html.j2",
        reload_seconds=0,
        name=found.name,
        sentences=(what_was_run(found), who_wins(found)),
        averages=[
            (name, f"{len(one.settings)} settings: {', '.join(one.settings)}.", _average_tables(one.metrics, found.against))
            for name, one in found.averages.items()
        ],
        reading_of_averages=READING_OF_AVERAGES if found.against is not None else "",
        settings=[
            {
                "name": name,
                "shown": name if len(found.settings) > 1 else "Results",
                "figure": differences(found, name, number),
                "first": score_table(found, name, next(iter(one.metrics))),
                "others": [(metric_label(metric), score_table(found, name, metric)) for metric in list(one.metrics)[1:]],
                "costs": cost_table(one.costs),
                "signatures": Table(
                    (Column("Metric", numeric=False), Column("Signature", numeric=False)),
                    tuple((Cell(metric_label(metric)), Cell(text)) for metric, text in one.signatures.items()),
                ),
            }
            for number, (name, one) in enumerate(found.settings.items())
        ],
        reading=reading(found),
        lacking=[
            f"{one.path}: {one.status}" + (f", {one.error}" if one.error else "") for one in found.cells if one.status != "done"
        ],
        total=f"All cells together took {duration(found.total_seconds)}.",
    )


def what_was_run(found: ExperimentRecord) -> str:
    """Systems, settings, seeds and cells."""
    systems = list(dict.fromkeys(one.system for one in found.cells))
    done = sum(one.status == "done" for one in found.cells)
    of = f"{done} of {len(found.cells)} runs are done" if done < len(found.cells) else f"all {counted(done, 'run')} are done"
    settings = f" in {counted(len(found.settings), 'setting')}" if len(found.settings) > 1 else ""
    seeds = counted(len(found.seeds), "seed")
    return f"This experiment compares {counted(len(systems), 'system')} ({listed(systems)}){settings} over {seeds}; {of}."


def who_wins(found: ExperimentRecord) -> str:
    """How many systems are surely better or worse than the one that all are compared with, by the first metric."""
    if found.against is None:
        return "The systems are not compared with one of them: give `against` in the experiment for differences and tests."
    groups: dict[str, list[str]] = {"better": [], "worse": [], "not significant": []}
    for setting, one in found.settings.items():
        metric, scores = next(iter(one.metrics.items()))
        for system, score_ in scores.items():
            if score_.contrast is not None:
                where = f"{system} ({setting})" if len(found.settings) > 1 else system
                groups[judged(metric, score_.contrast)].append(where)
    parts = [
        f"{_many(groups[key])} {_are(groups[key])} {words} than {found.against}"
        for key, words in (("better", "significantly better"), ("worse", "significantly worse"))
        if groups[key]
    ]
    if none := groups["not significant"]:
        parts.append(f"{_many(none)} {_are(none)} indistinguishable from {found.against}: the difference may be chance")
    said = "; ".join(parts) or f"no system could be compared with {found.against}"
    return f"After correction for all comparisons of a table, {said}."


def judged(metric: str, contrast: Contrast) -> str:
    """`better`, `worse` or `not significant`, by the interval and the corrected p-value."""
    if contrast.low <= 0 <= contrast.high or contrast.p_holm > LEVEL:
        return "not significant"
    return "better" if (contrast.difference > 0) != lower_is_better(metric) else "worse"


def differences(found: ExperimentRecord, setting: str, number: int) -> Figure | None:
    """The differences of a setting on its first metric; None without any."""
    metric, scores = next(iter(found.settings[setting].metrics.items()))
    rows = [
        Bar(system, one.difference, one.low, one.high, COLOURS[judged(metric, one)])
        for system, score_ in scores.items()
        if (one := score_.contrast) is not None
    ]
    if not rows:
        return None
    side = "left" if lower_is_better(metric) else "right"
    where = f" in {setting}" if len(found.settings) > 1 else ""
    return Figure(
        f"differences-{number}",
        f"Each system minus {found.against}{where}",
        f"Paired over seeds and examples, with 95% intervals. {side.capitalize()} of 0, the system is better; orange: "
        "significantly better, blue: significantly worse, grey: not significant.",
        Forest(f"difference in {metric_label(metric)}, {unit(metric)}", rows, zero=True),
    )


def score_table(found: ExperimentRecord, setting: str, metric: str) -> Table:
    """Means over seeds with intervals, and differences with intervals and p-values."""
    scores = found.settings[setting].metrics[metric]
    columns = [Column("System", numeric=False), Column("Seeds"), Column(_heading(metric)), Column("Deviation")]
    if found.against is not None:
        columns += [Column(f"minus {found.against}"), Column("p (Holm)"), Column("Reading", numeric=False)]
    columns.append(Column("Intervals hold for", numeric=False))
    rows = [tuple(_score_row(found, metric, system, one)) for system, one in scores.items()]
    note = "Small figures: 95% intervals, and the raw p below the corrected one."
    return Table(tuple(columns), tuple(rows), note=note)


def _score_row(found: ExperimentRecord, metric: str, system: str, one: SystemScore) -> list[Cell]:
    of = f"{one.seeds} of {one.seeds + one.missing}" if one.missing else str(one.seeds)
    row = [Cell(system), Cell(of, alarm=bool(one.missing))]
    row.append(Cell(MISSING) if one.mean is None else Cell(score(metric, one.mean), _between(metric, one.low, one.high)))
    row.append(Cell(MISSING if one.deviation is None else score(metric, one.deviation)))
    contrast = one.contrast
    if found.against is not None:
        if contrast is None:
            row += [Cell(MISSING)] * 3
        else:
            row.append(Cell(signed(metric, contrast.difference), span(metric, contrast.low, contrast.high)))
            row.append(Cell(p_value(contrast.p_holm), f"raw {p_value(contrast.p_value)}"))
            row.append(Cell(judged(metric, contrast)))
    holds = MISSING if one.holds_for is None else _HOLDS_FOR[one.holds_for]
    other = contrast is not None and contrast.holds_for != one.holds_for
    row.append(Cell(holds, f"difference: {_HOLDS_FOR[contrast.holds_for]}" if contrast is not None and other else ""))
    return row


def cost_table(costs: Mapping[str, SystemCost]) -> Table:
    """Mean prune ratio, sparsity and training time of each system."""
    rows: list[Row] = [
        (
            Cell(system),
            Cell(MISSING if one.prune_ratio is None else percent(one.prune_ratio)),
            Cell(MISSING if one.sparsity is None else percent(one.sparsity, 1)),
            Cell(MISSING if one.train_seconds is None else duration(one.train_seconds)),
        )
        for system, one in costs.items()
    ]
    columns = (Column("System", numeric=False), Column("Prune ratio"), Column("Sparsity"), Column("Training and trials"))
    return Table(columns, tuple(rows), note="Means over the runs that are done.")


def _average_tables(metrics: Mapping[str, Mapping[str, AverageScore]], against: str | None) -> list[tuple[str, Table]]:
    found: list[tuple[str, Table]] = []
    for metric, scores in metrics.items():
        columns = [Column("System", numeric=False), Column("Settings"), Column("Mean")]
        if against is not None:
            columns += [Column(f"minus {against}"), Column("p (Holm)"), Column("Better in"), Column("Worse in")]
            columns.append(Column("Worst seed better in"))
        rows = [tuple(_average_row(metric, system, one, against)) for system, one in scores.items()]
        title = "Primary metric of each setting" if metric == PRIMARY else metric_label(metric)
        found.append((title, Table(tuple(columns), tuple(rows))))
    return found


def _average_row(metric: str, system: str, one: AverageScore, against: str | None) -> list[Cell]:
    row = [Cell(system), Cell(str(one.settings)), Cell(MISSING if one.mean is None else score(metric, one.mean))]
    contrast = one.contrast
    if against is not None and contrast is None:
        row += [Cell(MISSING)] * 5
    elif contrast is not None:
        row.append(Cell(signed(metric, contrast.difference), _between(metric, contrast.low, contrast.high)))
        p, raw = contrast.p_holm, contrast.p_value
        row.append(Cell(MISSING if p is None else p_value(p), "" if raw is None else f"raw {p_value(raw)}"))
        row += [Cell(str(count)) for count in (contrast.better, contrast.worse, contrast.better_worst_seed)]
    return row


def _between(metric: str, low: float | None, high: float | None) -> str:
    return "unknown" if low is None or high is None else span(metric, low, high)


def _heading(metric: str) -> str:
    return metric_label(metric) + (" \N{DOWNWARDS ARROW}" if lower_is_better(metric) else "")


def _many(names: Sequence[str]) -> str:
    return listed(list(names)) if len(names) <= 6 else counted(len(names), "comparison")


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
