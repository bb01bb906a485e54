"""The `gradient` metric: the first-order estimate of what an entry's removal changes in the loss.

Axes: M stacked modules, R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import ImportanceMetric, ModuleStatistics, gradient_of, importance_metrics


@importance_metrics.register("gradient")
@dataclass(frozen=True)
class Gradient(ImportanceMetric):
    """First-order change of the loss when an entry is set to zero: `I(A)_rj = |A_rj * gA_rj|`, `I(B)_or = |B_or * gB_or|`.

    `gA = dL/dA` and `gB = dL/dB` are the last step's gradients. The criterion of Molchanov et al. 2017 (arXiv
    1611.06440); deviation: their unit is a feature map, here it is one entry.
    """

    needs_activations: ClassVar[bool] = False
    takes_stacks: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """See `ImportanceMetric.scores`; the norms are not read."""
        gradient = gradient_of(factors, statistics)
        return (factors.A * gradient.A).abs_(), (factors.B * gradient.B).abs_()
