"""How much a score varies when only the seed changes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean and deviation of a score over seeds. What is not known is None.

    Args:
        mean: of the known values; None where there are none.
        deviation: sample standard deviation (n - 1) of the known values; None of fewer than two.
        n: how many values are known.
        missing: how many are not: seeds that failed or whose score could not be had.
    """

    mean: float | None
    deviation: float | None
    n: int
    missing: int


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and sample standard deviation over seeds: `deviation ** 2 = sum((value - mean) ** 2) / (n - 1)`.

    Args:
        values: a score for each seed; None where it is not known, which is left out and counted.

    Raises:
        ValueError: a value that is infinite or not a number; what is not known is None.
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
