"""Tables of the pruning: the rounds that settled the ratio, and what it left of every module."""

from __future__ import annotations

from pomona.report.tables import Cell, Column, Table
from pomona.report.wording import MISSING, percent, signed_number
from pomona.runs.record import RunRecord


def rounds_table(record: RunRecord) -> Table:
    """What each round of the controller tried, saw and decided."""
    rows = [
        (
            Cell(str(seen.index + 1)),
            Cell(str(seen.step)),
            Cell(f"{seen.loss_before:.4f}"),
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
    columns = (
        Column("Round"),
        Column("Step"),
        Column("Loss before"),
        Column("Candidates (reward)", numeric=False),
        Column("Committed", numeric=False),
        Column("Ratio in force"),
        Column("Policy"),
        Column("Mask changed"),
    )
    return Table(columns, tuple(rows), note="Losses and rewards on the micro dev set, in nats per token.")


def modules_table(record: RunRecord) -> Table:
    """Sparsity and importance of every adapted module."""
    rows = [
        (
            Cell(found.module),
            Cell(percent(found.sparsity_A, 1)),
            Cell(percent(found.sparsity_B, 1)),
            Cell(f"{found.importance:.3g}"),
        )
        for found in record.modules
    ]
    return Table(
        (Column("Module", numeric=False), Column("Sparsity of A"), Column("Sparsity of B"), Column("Importance")), tuple(rows)
    )
