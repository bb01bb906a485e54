"""The `wanda` metric: magnitude times the norm of what each factor multiplies.

Axes: M stacked modules, R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import ImportanceMetric, ModuleStatistics, importance_metrics, norms_of


@importance_metrics.register("wanda")
@dataclass(frozen=True)
class Wanda(ImportanceMetric):
    """Magnitude times the norm of the input, each factor seen as a linear map of its own.

    `I(A)_rj = |A_rj| * input_norm_I[j]` and `I(B)_or = |B_or| * hidden_norm_R[r]`, where hidden is A x.

    ALM (arXiv 2505.24174) writes `I(W_ij) = |W_ij| * norm(x)_j` for a weight W with input x; it is applied to A with the
    module's input and to B with A's output. Deviation: the paper's code scores the factors by `delta_sensitivity` instead,
    and takes one norm a layer after a norm layer; here each norm is that of the matrix's own input.
    """

    needs_activations: ClassVar[bool] = True
    takes_stacks: ClassVar[bool] = True

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """See `ImportanceMetric.scores`."""
        input_norm_I, hidden_norm_R = norms_of(factors, statistics)
        return factors.A.abs() * input_norm_I[..., None, :], factors.B.abs() * hidden_norm_R[..., None, :]
