"""The table of the systems that were tuned over a grid: what the dev set chose, and what the whole grid cost."""

from __future__ import annotations

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.choices import judged_by, select_metric
from pomona.report.wording import MISSING, duration, metric_label, score, system_label
from pomona.runs.record import PointRecord, RunRecord

_NOTE = (
    "Each system is trained at every point of one grid and chosen by {}; no test example has a part in it. "
    "Runs, tokens and time of the chosen row are those of its point; the other rows are what the choice cost. "
    "Where a training of fewer epochs is, bit for bit, the first part of a longer one, the longer one stands for both."
)


def tuned_table(record: RunRecord) -> Table:
    """A row for each system and point; the chosen point is marked. Without rows where nothing was tuned."""
    metric = select_metric(record)
    columns = (
        Column("System", numeric=False),
        Column("Learning rate"),
        Column("Epochs"),
        Column("dev loss" if metric == "loss" else f"{metric_label(metric)} on dev"),
        Column("Kept epoch"),
        Column("Runs"),
        Column("Tokens"),
        Column("Time"),
    )
    rows: list[Row] = [_row(record, name, point) for name, points in record.tuned.items() for point in points]
    return Table(columns, tuple(rows), note=_NOTE.format(judged_by(record)) if rows else "")


def _row(record: RunRecord, name: str, point: PointRecord) -> Row:
    metric = select_metric(record)
    judged = point.dev_loss if metric == "loss" else point.dev_score
    note = "chosen" if point.chosen else (point.error or "")
    return (
        Cell(system_label(record, name), note, alarm=point.error is not None),
        Cell(MISSING if point.learning_rate is None else f"{point.learning_rate:g}"),
        Cell(MISSING if point.epochs is None else str(point.epochs)),
        Cell(MISSING if judged is None else score(metric, judged)),
        Cell(MISSING if point.kept_epoch is None else str(point.kept_epoch)),
        Cell(str(point.runs)),
        Cell(MISSING if point.tokens is None else f"{point.tokens:,}"),
        Cell(MISSING if point.seconds is None else duration(point.seconds)),
    )
