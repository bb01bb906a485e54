"""The `random` metric: scores drawn at random, once for a run. The control for every claim about which entries are pruned.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import ImportanceMetric, ModuleStatistics, importance_metrics


@importance_metrics.register("random")
@dataclass(frozen=True)
class Random(ImportanceMetric):
    """Scores drawn uniformly from [0, 1), one for each entry: `I(A)_rj`, `I(B)_or` ~ U(0, 1).

    The scores follow the run's seed and the module and are the same at every call of one run, so the order of the entries is fixed:
    at one ratio the same entries stay pruned, and a higher ratio prunes a superset of them. If another metric is not significantly
    better, the choice of entries does not matter.
    """

    needs_activations: ClassVar[bool] = False
    zero_is_unimportant: ClassVar[bool] = False

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O R"]]:
        """See `ImportanceMetric.scores`; only `seed` is read, and of the factors the shapes."""
        generator = torch.Generator().manual_seed(statistics.seed)
        A, B = (torch.rand(side.shape, generator=generator) for side in (factors.A, factors.B))
        return A.to(factors.A.device), B.to(factors.B.device)
