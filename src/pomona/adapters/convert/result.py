"""The result of a conversion and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Approximation:
    """The loss of the factors relative to the exact weight differences, measured on the written factors.

    Args:
        error: `||delta - B A||_F / ||delta||_F` over all modules together.
        worst_module: the module with the largest relative error.
        worst_error: the relative error of this module.
    """

    error: float
    worst_module: str
    worst_error: float


@dataclass(frozen=True)
class Dropped:
    """A tensor that differs from the base model's and is not in the adapter.

    Args:
        name: its name in the checkpoint.
        change: `||tuned - base||_F / ||base||_F`; None if the shapes differ.
    """

    name: str
    change: float | None


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Args:
        output: the adapter's folder.
        kind: the kind of input, in words.
        modules: number of modules of the adapter.
        rank: the largest rank among them.
        approximation: the loss; None if the conversion is exact.
        dropped: tensors that were left out as `drop` allows, the largest change first.
        warnings: one sentence each.
    """

    output: Path
    kind: str
    modules: int
    rank: int
    approximation: Approximation | None = None
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[str, ...] = ()
