"""What a conversion made, and what it lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Approximation:
    """What the factors lose of the exact differences of weights, measured on the factors as they are written.

    Args:
        error: `||delta - B A||_F / ||delta||_F` over all modules together.
        worst_module: the module that loses the largest share of its own.
        worst_error: its share.
    """

    error: float
    worst_module: str
    worst_error: float


@dataclass(frozen=True)
class Dropped:
    """A tensor that differs from the base model's and is not in the adapter.

    Args:
        name: its name in the checkpoint.
        change: `||tuned - base||_F / ||base||_F`; None where the shapes differ, so that there is no difference.
    """

    name: str
    change: float | None


@dataclass(frozen=True)
class Conversion:
    """A conversion that was done.

    Args:
        output: the adapter's folder.
        kind: what the input was.
        modules: how many modules the adapter has.
        rank: the largest rank among them.
        approximation: what it lost; None where every value was kept.
        dropped: what was left out because the caller said so, the largest change first.
        warnings: one sentence each.
    """

    output: Path
    kind: str
    modules: int
    rank: int
    approximation: Approximation | None = None
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[str, ...] = ()
