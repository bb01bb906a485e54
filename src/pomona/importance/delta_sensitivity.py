"""The `delta_sensitivity` metric: how much the size of the dense update depends on each entry.

Axes: R rank, I input features, O output features, b rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import ImportanceMetric, ModuleStatistics, importance_metrics, norms_of, widened


@importance_metrics.register("delta_sensitivity")
@dataclass(frozen=True)
class DeltaSensitivity(ImportanceMetric):
    """How much the size of the dense update, weighted by the norm of the input, depends on each entry.

    With `S = sum_oj |(B A)_oj| * input_norm_I[j]` the scores are `I(A) = |dS/dA| = |B^T (sign(B A) * input_norm_I)|` and
    `I(B) = |dS/dB| = |(sign(B A) * input_norm_I) A^T|`. This is what the published code of ALM (arXiv 2505.24174) prunes by;
    its text says `wanda`. An entry's own value does not count, but its partners' in the other factor: where one factor is all
    zero, every score of both is zero.

    Deviation: the published code builds the O x I matrix and differentiates it; here the derivatives are in closed form and in
    blocks of rows, O I R multiplications three times over.
    """

    needs_activations: ClassVar[bool] = True

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O R"]]:
        """See `ImportanceMetric.scores`; only the input's norm is read."""
        input_norm_I, _ = norms_of(factors, statistics)
        wide = widened(factors)
        weight_I = input_norm_I.to(wide.A.dtype) * abs(wide.scaling)
        weighted_A_IR = (wide.A * weight_I).T
        by_A_RI, by_B_OR = torch.zeros_like(wide.A), torch.empty_like(wide.B)
        for rows, delta_bI in wide.delta_blocks(wide.A.dtype):
            sign_bI = delta_bI.sign_()
            # The weight belongs to columns, so it is applied once at the end, not to every block.
            by_A_RI.addmm_(wide.B[rows].T, sign_bI)
            by_B_OR[rows] = sign_bI @ weighted_A_IR
        return by_A_RI.mul_(weight_I).abs_(), by_B_OR.abs_()
