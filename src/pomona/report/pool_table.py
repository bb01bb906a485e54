"""The table of the sources from which a run chose, best first."""

from __future__ import annotations

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.wording import score, signed
from pomona.runs.record import RunRecord

_NOTE = (
    "Each source alone on the model, on the training examples only; best first by {}. "
    "Loss: nats per token of the completions ({} without any source). "
    "Agreement: cosine of the source's update with a step down the loss, from \N{MINUS SIGN}1 to 1."
)


def pool_table(record: RunRecord) -> Table:
    """A row for each candidate; without rows where the run had no pool."""
    columns = (Column("Candidate", numeric=False), Column("Loss"), Column("Against the bare model"), Column("Agreement"))
    pool = record.pool
    if pool is None:
        return Table(columns, ())
    rows: list[Row] = [
        (
            Cell(one.name, "chosen" if one.chosen else ""),
            Cell(score("loss", one.loss)),
            Cell(signed("loss", one.loss - pool.base_loss)),
            Cell(signed("loss", one.agreement)),
        )
        for one in pool.candidates
    ]
    return Table(columns, tuple(rows), note=_NOTE.format(pool.by, score("loss", pool.base_loss)))
