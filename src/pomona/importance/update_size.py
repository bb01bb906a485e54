"""How large a module's whole update is, weighted by the norm of its input: what whole modules are pruned by.

Axes: R rank, I input features, O output features, b rows of a block.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import at_least_fp32, widened


@torch.no_grad()
def mean_update_size(factors: Factors, input_norm_I: Float[Tensor, " I"]) -> Float[Tensor, ""]:
    """Mean entry of the dense update, weighted by the norm of the input: `mean_oj |scaling * (B A)_oj| * input_norm_I[j]`.

    ALM's ablation (arXiv 2505.24174) prunes the modules where this is lowest. Computed in blocks of rows: the O x I matrix is
    never held.

    Args:
        factors: one module's factors; neither is changed.
        input_norm_I: L2 norm of each input feature, [I], >= 0.

    Returns:
        The mean, >= 0, fp64, in the unit of the module's output; it can be compared between modules.

    Raises:
        ValueError: the norms are not as many as the factors' input features.
    """
    if input_norm_I.shape != (factors.in_features,):
        raise ValueError(f"norms of shape {tuple(input_norm_I.shape)} do not fit factors with {factors.in_features} input features")
    wide = widened(factors)
    weight_I = at_least_fp32(input_norm_I).to(wide.A.dtype)
    size = weight_I.new_zeros(())
    for _, delta_bI in wide.delta_blocks(wide.A.dtype):
        size += (delta_bI.abs_() @ weight_I).sum()
    wide_size = (size.cpu() if size.device.type == "mps" else size).double()  # Apple's GPUs have no fp64
    return wide_size / (factors.out_features * factors.in_features)
