"""What an importance metric is: scores of every entry of a module's two factors, from the factors and streamed norms.

Axes: R rank, I input features, O output features. x [I] is a module's input, one token at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.registry import Registry


@dataclass(frozen=True, eq=False)
class ModuleStatistics:
    """What is known of one module's activations, up to one positive constant common to both norms.

    Args:
        input_norm_I: L2 norm of each input feature over the non-padding tokens seen, [I], >= 0.
        hidden_norm_R: L2 norm of each component of A x over the same tokens, [R], >= 0.
    """

    input_norm_I: Float[Tensor, " I"]
    hidden_norm_R: Float[Tensor, " R"]


class ImportanceMetric(ABC):
    """How much each entry of A and B matters. Subclasses are frozen dataclasses, one a file, registered in `importance_metrics`.

    `scores` runs for every adapted module after each optimizer step: it may touch each entry of the factors a few times,
    and must never build an O x I matrix.
    """

    needs_activations: ClassVar[bool]
    """Whether `scores` reads the statistics; where False, nobody needs to collect them."""

    @abstractmethod
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O R"]]:
        """Scores of A and of B, >= 0; the lowest are pruned first. Only their order within one factor counts.

        Args:
            factors: one module's factors; neither is changed.
            statistics: norms of the same module, on the same device.

        Returns:
            Scores of A, [R, I], and of B, [O, R], without gradient.

        Raises:
            ValueError: the norms do not fit the factors.
        """


importance_metrics: Registry[ImportanceMetric] = Registry("importance metric")
