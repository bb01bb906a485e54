"""The tables of a run's results, and the figures at the top of its page."""

from __future__ import annotations

from dataclasses import dataclass

from pomona.comparison import Comparison
from pomona.ratios import Answer
from pomona.report.bounds import bound_reached, includes_none
from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.choices import granularity, is_given, is_search, prunes_to_zero
from pomona.report.sentences import POMONA, TARGET_LORA, ZERO_SHOT
from pomona.report.wording import (
    MISSING,
    NBSP,
    comparison_of,
    counted,
    duration,
    family_size,
    is_unlike,
    lower_is_better,
    may_be_chance,
    metric_label,
    p_value,
    percent,
    percent_span,
    score,
    signed,
    span,
    system_label,
    unit,
    verdict,
)
from pomona.runs.record import Estimate, RunRecord, SystemDescription
from pomona.runs.sizes import said_count, said_kinds, said_training


@dataclass(frozen=True)
class Tile:
    """A headline figure: its label, its value, and a qualifying note."""

    label: str
    value: str
    note: str = ""


_ABSENT = Cell(MISSING)


def headline(record: RunRecord) -> tuple[Tile, ...]:
    """The figures at the top of the page; figures that the record lacks are left out."""
    metric = record.primary_metric
    tiles: list[Tile] = []
    if (estimate := record.metrics.get(POMONA, {}).get(metric)) is not None:
        tiles.append(
            Tile(
                metric_label(metric),
                score(metric, estimate.value),
                f"{span(metric, estimate.low, estimate.high)}, n = {estimate.n}",
            )
        )
    for baseline in (ZERO_SHOT, TARGET_LORA):
        if (found := comparison_of(record, POMONA, baseline, metric)) is not None:
            unlike = ", trained differently" if is_unlike(record, baseline) else ""
            note = f"{span(metric, found.low, found.high)}, {_reading(found)}{unlike}"
            tiles.append(Tile(f"Against {system_label(record, baseline)}", signed(metric, found.difference), note))
    answer = record.answer
    if answer is not None:
        tiles.append(Tile("Prune ratio", percent(answer.prune_ratio), _how_sure(record, answer)))
    elif record.prune_ratio is not None:
        tiles.append(Tile("Prune ratio", percent(record.prune_ratio), "given"))
    if record.sparsity is not None:
        tiles.append(Tile("Sparsity", percent(record.sparsity, 1), _what_zeros(record)))
    if record.timing.total_seconds:
        tiles.append(Tile("Run time", duration(record.timing.total_seconds), f"training {duration(record.timing.train_seconds)}"))
    return tuple(tiles)


def _how_sure(record: RunRecord, answer: Answer) -> str:
    if is_given(answer):
        return "given"
    if record.learned_nothing:
        return "the start value; no round took place"
    tried = [f"best of {len(answer.curve)} tried"] if is_search(record) else []
    interval = [percent_span(answer.low, answer.high)] if answer.low < answer.high else []
    ends = ["ends at a bound of the search" if answer.low < answer.high else "at a bound of the search"]
    ends = ends if bound_reached(record) else ["includes no pruning"] if includes_none(answer) else []
    return ", ".join([*tried, *interval, *ends, *(["flat"] if answer.flat else [])])


def _what_zeros(record: RunRecord) -> str:
    main = record.systems.get(POMONA)
    of = f" of {said_count(main.trained_parameters)} trained parameters" if main and main.trained_parameters else ""
    if not prunes_to_zero(record):
        return f"exact zeros{of}; pruned entries are reset to their start values"
    if granularity(record) != "parameter":
        return f"exact zeros{of}, before they were removed"
    stored = ""
    if main and main.stored_parameters and main.padding:
        stored = f"; {said_count(main.stored_parameters)} stored, with padding"
    return f"exact zeros{of}{stored}" if of else "exact zeros, measured"


def systems_table(record: RunRecord) -> Table:
    """Every system with every metric and its interval, the paired difference from target LoRA, and the cost."""
    metrics = metric_names(record)
    primary = record.primary_metric
    differences = {system: comparison_of(record, system, TARGET_LORA, primary) for system in record.systems}
    compared = any(differences.values())
    columns = [Column("System", numeric=False)]
    for metric in metrics:
        columns.append(Column(metric_label(metric) + (" \N{DOWNWARDS ARROW}" if lower_is_better(metric) else "")))
        if compared and metric == primary:
            columns += [Column(f"against {system_label(record, TARGET_LORA)}"), Column(_p_heading(record))]
    columns += [Column("Rank"), Column("Prune ratio"), Column("Sparsity"), Column("Training")]
    rows: list[Row] = []
    for system, described in record.systems.items():
        cells = [Cell(described.label)]
        for metric in metrics:
            estimate = record.metrics.get(system, {}).get(metric)
            cells.append(_score_cell(record, metric, estimate) if estimate is not None else _ABSENT)
            if compared and metric == primary:
                cells += _difference_cells(differences[system])
        cells.append(Cell(str(described.rank)) if described.rank is not None else _ABSENT)
        cells.append(Cell(percent(described.prune_ratio)) if described.prune_ratio is not None else _ABSENT)
        cells.append(Cell(percent(described.sparsity, 1)) if described.sparsity is not None else _ABSENT)
        cells.append(Cell(duration(described.train_seconds)) if described.train_seconds is not None else _ABSENT)
        rows.append(tuple(cells))
    names = list(record.systems)
    return Table(
        columns=tuple(columns),
        rows=tuple(rows),
        strong=names.index(POMONA) if POMONA in names else None,
        note="Small figures: 95% bootstrap intervals over the test examples. "
        "They cover the variation between test examples, not between training seeds."
        + _unknown_note(record)
        + (_p_note(record, [primary]) if compared else ""),
    )


def descriptions_table(record: RunRecord) -> Table:
    """A description of each system and, if the record has them, its modules, its size and its training."""
    systems = record.systems.values()
    columns = [Column("System", numeric=False), Column("What it is", numeric=False)]
    rows = [[Cell(one.label), Cell(one.description)] for one in systems]
    if any(one.adapted is not None for one in systems):
        headings = ("Modules", "Rank", "Parameters trained", "Stored", "Lost by truncation", "Training")
        columns += [Column(heading, numeric=heading not in ("Modules", "Training")) for heading in headings]
        for row, one in zip(rows, systems, strict=True):
            row += _made_of(one)
    unlike = [
        f"{one.label} is trained differently from Pomona: {'; '.join(one.differences)}." for one in systems if one.differences
    ]
    note = ""
    if len(columns) > 2:
        note = "Stored: entries of the exported adapter, which has one rank for all modules; small figures: the zeros that pad it."
    return Table(tuple(columns), tuple(map(tuple, rows)), note=" ".join([note, *unlike]).strip())


def _made_of(system: SystemDescription) -> list[Cell]:
    stored = Cell(MISSING)
    if system.stored_parameters is not None:
        stored = Cell(said_count(system.stored_parameters), f"{said_count(system.padding)} padding" if system.padding else "")
    return [
        Cell(said_kinds(system.adapted)) if system.adapted else _ABSENT,
        Cell(str(system.rank)) if system.rank is not None else _ABSENT,
        Cell(said_count(system.trained_parameters)) if system.trained_parameters is not None else _ABSENT,
        stored,
        Cell(percent(system.rank_loss, 1)) if system.rank_loss is not None else _ABSENT,
        Cell(said_training(system.training)) if system.training else _ABSENT,
    ]


def comparisons_table(record: RunRecord, *, primary: bool) -> Table:
    """Paired differences of the primary metric, or of all other metrics."""
    rows = [
        (
            Cell(f"{system_label(record, found.system)} against {system_label(record, found.baseline)}"),
            *(() if primary else (Cell(metric_label(found.metric)),)),
            Cell(
                signed(found.metric, found.difference)
                if primary
                else f"{signed(found.metric, found.difference)} {unit(found.metric)}"
            ),
            Cell(span(found.metric, found.low, found.high)),
            _p_cell(found),
            Cell(str(found.n)),
            Cell(_reading(found).replace(" ", NBSP)),
        )
        for found in record.comparisons
        if (found.metric == record.primary_metric) == primary
    ]
    difference = f"{metric_label(record.primary_metric)}, {unit(record.primary_metric)}" if primary else "Difference"
    columns = (
        Column("Systems", numeric=False),
        *(() if primary else (Column("Metric", numeric=False),)),
        Column(difference),
        Column("95% interval"),
        Column(_p_heading(record)),
        Column("n"),
        Column("Reading", numeric=False),
    )
    shown = [metric for metric in metric_names(record) if (metric == record.primary_metric) == primary]
    note = "Differences are paired: both systems answered the same test examples." + _p_note(record, shown)
    if any(may_be_chance(found) for found in record.comparisons if found.metric in shown):
        note += " Uncorrected: the interval excludes 0, but the corrected p is above 0.05, so the difference may be chance."
    return Table(columns, tuple(rows), note=note)


def metric_names(record: RunRecord) -> list[str]:
    """Every metric that some system has, the primary metric first."""
    seen = dict.fromkeys(metric for scores in record.metrics.values() for metric in scores)
    return [record.primary_metric] * (record.primary_metric in seen) + [
        metric for metric in seen if metric != record.primary_metric
    ]


def _difference_cells(found: Comparison | None) -> list[Cell]:
    if found is None:
        return [_ABSENT, _ABSENT]
    return [Cell(signed(found.metric, found.difference), span(found.metric, found.low, found.high)), _p_cell(found)]


def _score_cell(record: RunRecord, metric: str, estimate: Estimate) -> Cell:
    """A score with its interval, and the number of examples if that is not the whole test set."""
    test = record.splits.get("test")
    of = f",\nn = {estimate.n}" if test is not None and estimate.n < test.examples else ""
    return Cell(score(metric, estimate.value), span(metric, estimate.low, estimate.high) + of)


def _unknown_note(record: RunRecord) -> str:
    unknown = any(estimate.low == estimate.high for scores in record.metrics.values() for estimate in scores.values())
    return " An interval is unknown if the scores of the test examples do not vary." if unknown else ""


def _reading(found: Comparison) -> str:
    return f"{verdict(found)}, uncorrected" if may_be_chance(found) else verdict(found)


def _p_heading(record: RunRecord) -> str:
    return "p (Holm)" if any(found.p_holm is not None for found in record.comparisons) else "p"


def _p_cell(found: Comparison) -> Cell:
    """The corrected p-value with the raw p-value below it; the raw p-value alone if the record has no corrected one."""
    if found.p_holm is None:
        return Cell(p_value(found.p_value))
    return Cell(p_value(found.p_holm), f"raw {p_value(found.p_value)}")


def _p_note(record: RunRecord, shown: list[str]) -> str:
    sizes = {size for metric in shown if (size := family_size(record, metric))}
    if not sizes:
        return ""
    over = f"the {counted(sizes.pop(), 'comparison')}" if len(sizes) == 1 else "all comparisons"
    on = "this" if len(shown) == 1 else "each"
    return f" p: after Holm's correction for {over} on {on} metric; small figures: the raw p."
