"""The `activation` metric: the norm of what each entry multiplies, alone.

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


@importance_metrics.register("activation")
@dataclass(frozen=True)
class Activation(ImportanceMetric):
    """The norm of the input alone: `I(A)_rj = input_norm_I[j]`, `I(B)_or = hidden_norm_R[r]`, where hidden is A x.

    An ablation of `wanda`: whatever the entries are, those go that multiply the weakest inputs. All entries of a column of A
    are equal, and all of a column of B, so a factor loses whole columns, and of the last one its first entries.
    """

    needs_activations: ClassVar[bool] = True
    takes_stacks: ClassVar[bool] = True
    zero_is_unimportant: ClassVar[bool] = False

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """See `ImportanceMetric.scores`; of the factors only the shapes are read."""
        input_norm_I, hidden_norm_R = norms_of(factors, statistics)
        sides = ((input_norm_I, factors.A), (hidden_norm_R, factors.B))
        A, B = (norm[..., None, :].expand(factor.shape).clone(memory_format=torch.contiguous_format) for norm, factor in sides)
        return A, B
