"""The variation of a score between seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean and deviation of a score over seeds; unknown values are None.

    Args:
        mean: mean of the known values; None if there are none.
        deviation: sample standard deviation (n - 1) of the known values; None for fewer than two.
        n: number of known values.
        missing: number of unknown values: seeds that failed or have no score.
    """

    mean: float | None
    deviation: float | None
    n: int
    missing: int


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and sample standard deviation over seeds: `deviation ** 2 = sum((value - mean) ** 2) / (n - 1)`.

    Args:
        values: a score for each seed; None for an unknown score, which is only counted.

    Raises:
        ValueError: a value is infinite or NaN; an unknown value must be None.
    """
    known = [value for value in values if value is not None]
    for value in known:
        if not math.isfinite(value):
            raise ValueError(f"values must be finite, or None where not known, not {value}")
    return Spread(
        mean=statistics.fmean(known) if known else None,
        deviation=statistics.stdev(known) if len(known) > 1 else None,
        n=len(known),
        missing=len(values) - len(known),
    )
