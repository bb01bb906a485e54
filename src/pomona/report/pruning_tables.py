"""Tables of the pruning: the rounds that learned the ratio, and the sparsity of every module."""

from __future__ import annotations

from pomona.ratios import GroupRatio, RoundRecord
from pomona.report.bounds import bound_reached
from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.choices import reward_unit, rewards_loss
from pomona.report.figures.layers import left_out
from pomona.report.unpruned import compared_with_none
from pomona.report.wording import MISSING, percent, percent_span, signed_number
from pomona.runs.record import RunRecord


def _compared_with(seen: RoundRecord) -> str:
    return f"{seen.loss_before:.4f}" + ("" if seen.reference is None else f" ({percent(seen.reference)})")


def rounds_table(record: RunRecord) -> Table:
    """The candidates, rewards and decision of each round of the controller."""
    rows = [
        (
            Cell(str(seen.index + 1)),
            Cell(str(seen.step)),
            Cell(_compared_with(seen)),
            Cell(
                ", ".join(f"{percent(tried.prune_ratio)} ({signed_number(tried.reward, 4)})" for tried in seen.candidates)
                or MISSING
            ),
            Cell("yes" if seen.committed else "no"),
            Cell(f"{percent(seen.prune_ratio_before)} \N{RIGHTWARDS ARROW} {percent(seen.prune_ratio_after)}"),
            Cell(f"{percent(seen.mean)} ± {percent(seen.deviation)}"),
            Cell(percent(seen.mask_change, 1)) if seen.mask_change is not None else Cell(MISSING),
        )
        for seen in record.rounds
    ]
    cost = "Loss" if rewards_loss(record) else "Cost"
    columns = (
        Column("Round"),
        Column("Step"),
        Column(f"Reference {cost.lower()} (ratio)"),
        Column("Candidates (reward)", numeric=False),
        Column("Committed", numeric=False),
        Column("Ratio in force"),
        Column("Search"),
        Column("Mask changed"),
    )
    sign = "" if rewards_loss(record) else " In a cost, a score is subtracted."
    losses = "Losses" if rewards_loss(record) else "Costs"
    compared = (
        "no pruning, ratio 0"
        if compared_with_none(record)
        else "a mask selected in the same round at the ratio in force, as the candidates' masks are (with `paper: true`, "
        "the mask in force)"
    )
    note = f"{losses} and rewards on the micro dev set, in {reward_unit(record)}. Reference of the candidates: {compared}.{sign}"
    return Table(columns, tuple(rows), note=note)


def groups_table(record: RunRecord) -> Table:
    """The ratio of each group of layers, if each group has its own."""
    groups = record.answer.by_group if record.answer is not None else ()
    rows = [
        (
            Cell(_layers(group)),
            Cell(percent(group.prune_ratio)),
            Cell(percent_span(group.low, group.high) if group.low < group.high else "given"),
        )
        for group in groups
    ]
    columns = (Column("Layers", numeric=False), Column("Prune ratio"), Column("95% interval"))
    note = "Layers count from 0; the last group includes modules outside layers. The ratio for all layers is the mean by entries."
    if record.learned_nothing:
        note += " No round took place: the ratios are the start values, and the intervals are the allowed range."
    elif ends := bound_reached(record):
        note += f" An interval {ends}."
    return Table(columns, tuple(rows), note=note)


def _layers(group: GroupRatio) -> str:
    return f"{group.first_layer} to {group.last_layer}" if group.first_layer != group.last_layer else str(group.first_layer)


def modules_table(record: RunRecord) -> Table:
    """Sparsity and importance of every adapted module, and the merge weights if they were trained."""
    trained = any(found.merge_weights is not None for found in record.modules)
    rows: list[Row] = []
    for found in record.modules:
        cells = [
            Cell(found.module),
            Cell(percent(found.sparsity_A, 1)),
            Cell(percent(found.sparsity_B, 1)),
            Cell(f"{found.importance:.3g}"),
        ]
        if trained:
            cells.append(Cell(", ".join(signed_number(one, 3).removeprefix("+") for one in found.merge_weights or []) or MISSING))
        rows.append(tuple(cells))
    columns = [Column("Module", numeric=False), Column("Sparsity of A"), Column("Sparsity of B"), Column("Importance")]
    notes = [f"Sparsity: share of exact zeros.{left_out(record)}"] if left_out(record) else []
    if trained:
        columns.append(Column("Merge weights"))
        notes.append("Merge weights were trained; their order is that of the merged adapters.")
    return Table(tuple(columns), tuple(rows), note=" ".join(notes))
