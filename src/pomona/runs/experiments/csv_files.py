"""An experiment's results for spreadsheets and data frames: every score of every cell, and the tables of the systems."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pomona.errors import InputError
from pomona.runs.experiments.record import ExperimentRecord
from pomona.whole_files import write_whole

SCORES, SYSTEMS = "scores.csv", "systems.csv"


def write_csv(folder: Path, found: ExperimentRecord) -> None:
    """Write `scores.csv` (one row for each setting, system, seed and metric) and `systems.csv` (one for each mean over seeds).

    Args:
        folder: the experiment's.
        found: what it holds.

    Raises:
        InputError: the disk refuses.
    """
    for name, rows in ((SCORES, score_rows(found)), (SYSTEMS, system_rows(found))):
        try:
            write_whole(folder / name, as_csv(rows))
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", file=folder / name) from error


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def score_rows(found: ExperimentRecord) -> Iterator[Sequence[object]]:
    """The long form. A seed without a score has an empty value."""
    yield ("setting", "system", "seed", "metric", "value")
    for setting, one in found.settings.items():
        for metric, scores in one.metrics.items():
            for system, score in scores.items():
                for seed, value in zip(found.seeds, score.values, strict=True):
                    yield (setting, system, seed, metric, value)


def system_rows(found: ExperimentRecord) -> Iterator[Sequence[object]]:
    """Means over seeds with intervals, and differences to the system that all are compared with."""
    contrast = ("difference", "difference_low", "difference_high", "p_value", "p_holm", "difference_holds_for")
    yield ("setting", "system", "metric", "seeds", "mean", "deviation", "low", "high", "holds_for", "against", *contrast)
    for setting, one in found.settings.items():
        for metric, scores in one.metrics.items():
            for system, score in scores.items():
                own = (score.seeds, score.mean, score.deviation, score.low, score.high, score.holds_for)
                other = score.contrast
                compared: tuple[object, ...] = (None,) * (1 + len(contrast))
                if other is not None:
                    values = (other.difference, other.low, other.high, other.p_value, other.p_holm, other.holds_for)
                    compared = (found.against, *values)
                yield (setting, system, metric, *own, *compared)
