"""Factors that approximate a matrix of higher rank, with the loss.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pomona.adapters.factors import Factors


class Loss(NamedTuple):
    """The loss of the truncation of a matrix M to a rank.

    Args:
        lost_squared: `||M - B A||_F^2`, >= 0.
        whole_squared: `||M||_F^2`.
        rest: the dropped singular values of M, largest first; None if they are unknown.
    """

    lost_squared: float
    whole_squared: float
    rest: tuple[float, ...] | None = None


_NOTHING = Loss(0.0, 0.0, ())


@dataclass(frozen=True, eq=False)
class Truncated(Factors):
    """Factors of a truncated matrix.

    Args:
        loss: the loss of the truncation.
    """

    loss: Loss = _NOTHING
