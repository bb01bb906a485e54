"""The grid over which every trained system of a run is tuned alike (`evaluation.tune`)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from pomona.tuning.settings import Tuning

_MARK = "@"


@dataclass(frozen=True)
class Point:
    """One point of the grid. What it does not give stays as in the recipe's `tuning`.

    Args:
        learning_rate: learning rate of the first epoch, > 0.
        epochs: passes over the training examples, >= 1.
    """

    learning_rate: float | None = None
    epochs: int | None = None

    def tuning(self, given: Tuning) -> Tuning:
        """The settings of fine-tuning at this point."""
        return dataclasses.replace(given, **self._values())

    def weights_rate(self, rate: float | None, given: Tuning) -> float | None:
        """The learning rate of merge weights or coefficients at this point: it keeps its ratio to that of the factors.

        Args:
            rate: as the recipe gives it; None: they have no rate of their own.
            given: the recipe's `tuning`.
        """
        return rate if rate is None or self.learning_rate is None else rate * (self.learning_rate / given.learning_rate)

    @property
    def label(self) -> str:
        """`learning_rate=0.0002,epochs=4`; empty where there is no grid."""
        return ",".join(f"{name}={value!r}" for name, value in self._values().items())

    def named(self, system: str) -> str:
        """The name of a training of `system` at this point; the system's own name where there is no grid."""
        return f"{system}{_MARK}{self.label}" if self.label else system

    def _values(self) -> dict[str, float | int]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


AS_GIVEN = Point()
"""The recipe's own settings."""


def without_point(training: str) -> str:
    """The name of a training without the point of the grid."""
    return training.partition(_MARK)[0]


class Tune(BaseModel):
    """The same small grid for every system that is trained by a gradient; the dev set chooses each system's point.

    The judge is `select_by`, as for the epochs of a training. A run that learns its ratio is repeated as a whole at every point.

    Args:
        learning_rate: learning rates of the first epoch, each > 0; that of `tuning` where not given. The rate of merge weights and
            coefficients is multiplied by the same factor: a rate that is twice that of `tuning` doubles it.
        epochs: numbers of epochs, each >= 1; that of `tuning` where not given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = ()
    epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        if not self.learning_rate and not self.epochs:
            raise ValueError("give `learning_rate` or `epochs`, each a list of values, or leave `tune` out")
        for name, values in (("learning_rate", self.learning_rate), ("epochs", self.epochs)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a value twice: {', '.join(map(str, values))}")
        return self

    def points(self, *, prefixes: bool) -> Sequence[Point]:
        """The points to train, in the order of the lists.

        Args:
            prefixes: whether a training of fewer epochs is, bit for bit, the first part of one of more epochs. As the best epoch is
                kept, the longest training then stands for the shorter ones.
        """
        epochs = (max(self.epochs),) if prefixes and self.epochs else self.epochs
        return [Point(*values) for values in itertools.product(self.learning_rate or (None,), epochs or (None,))]


def points_of(tune: Tune | None, *, prefixes: bool) -> Sequence[Point]:
    """The points at which a system is trained; the recipe's own settings where there is no grid."""
    return [AS_GIVEN] if tune is None else tune.points(prefixes=prefixes)
