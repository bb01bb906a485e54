"""Factors that stand for a larger matrix, with what they leave out of it.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pomona.adapters.factors import Factors


class Loss(NamedTuple):
    """What a rank leaves out of a matrix M.

    Args:
        lost_squared: `||M - B A||_F^2`, >= 0.
        whole_squared: `||M||_F^2`.
        rest: the singular values of M that a higher rank would keep, largest first; None where they are not known.
    """

    lost_squared: float
    whole_squared: float
    rest: tuple[float, ...] | None = None


_NOTHING = Loss(0.0, 0.0, ())


@dataclass(frozen=True, eq=False)
class Truncated(Factors):
    """Factors of what a rank keeps of a matrix.

    Args:
        loss: what it leaves out.
    """

    loss: Loss = _NOTHING
