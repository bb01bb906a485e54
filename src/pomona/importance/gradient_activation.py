"""The `gradient_activation` metric: the size of the gradient times the norm of what each entry multiplies.

Axes: M stacked modules, R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import ImportanceMetric, ModuleStatistics, gradient_of, importance_metrics, norms_of


@importance_metrics.register("gradient_activation")
@dataclass(frozen=True)
class GradientActivation(ImportanceMetric):
    """The gradient's size times the norm of the input: `wanda` with the gradient in place of the value.

    `I(A)_rj = |gA_rj| * input_norm_I[j]` and `I(B)_or = |gB_or| * hidden_norm_R[r]`, where hidden is A x, and `gA = dL/dA` and
    `gB = dL/dB` are the last step's gradients. An ablation: an entry's own value does not count, so one that was reset to zero
    is kept where the loss still pulls at it.
    """

    needs_activations: ClassVar[bool] = True
    takes_stacks: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True
    zero_is_unimportant: ClassVar[bool] = False

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """See `ImportanceMetric.scores`; of the factors only the shapes are read."""
        input_norm_I, hidden_norm_R = norms_of(factors, statistics)
        gradient = gradient_of(factors, statistics)
        return gradient.A.abs() * input_norm_I[..., None, :], gradient.B.abs() * hidden_norm_R[..., None, :]
