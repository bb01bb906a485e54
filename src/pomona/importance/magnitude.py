"""The `magnitude` metric: the absolute value alone.

Axes: M stacked modules, R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import ImportanceMetric, ModuleStatistics, importance_metrics


@importance_metrics.register("magnitude")
@dataclass(frozen=True)
class Magnitude(ImportanceMetric):
    """The absolute value alone: `I(A)_rj = |A_rj|`, `I(B)_or = |B_or|`.

    The published code of GRASP (arXiv 2601.06702) comes down to this: its activation term is one number for the whole model,
    which changes no order within a factor.
    """

    needs_activations: ClassVar[bool] = False
    takes_stacks: ClassVar[bool] = True

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """See `ImportanceMetric.scores`; the statistics are not read."""
        return factors.A.abs(), factors.B.abs()
