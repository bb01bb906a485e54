"""What a metric reads of the statistics: checked against the factors, and in fp32 at least, so that bf16 rounds no score.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance.base import FactorPair, ModuleStatistics, Smoothed


def norms_of(factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, " I"], Float[Tensor, " R"]]:
    """The norms of a module's input and of its hidden values.

    Raises:
        ValueError: their lengths are not those of the factors.
    """
    input_norm_I, hidden_norm_R = statistics.input_norm_I, statistics.hidden_norm_R
    if input_norm_I.shape != (factors.in_features,) or hidden_norm_R.shape != (factors.rank,):
        raise ValueError(
            f"norms of shape {tuple(input_norm_I.shape)} and {tuple(hidden_norm_R.shape)} do not fit factors with "
            f"{factors.in_features} input features and rank {factors.rank}"
        )
    return at_least_fp32(input_norm_I), at_least_fp32(hidden_norm_R)


def gradient_of(factors: Factors, statistics: ModuleStatistics) -> FactorPair:
    """The gradient of the loss by each factor.

    Raises:
        ValueError: there is none, or its shapes are not those of the factors.
    """
    return _fitting("gradient", statistics.gradient, factors)


def smoothed_of(factors: Factors, statistics: ModuleStatistics) -> Smoothed:
    """The averages of the sensitivity.

    Raises:
        ValueError: there are none, or their shapes are not those of the factors.
    """
    mean, uncertainty = statistics.smoothed or (None, None)
    return Smoothed(_fitting("smoothed mean", mean, factors), _fitting("smoothed uncertainty", uncertainty, factors))


def at_least_fp32(tensor: Tensor) -> Tensor:
    """The tensor itself if it is fp32 or fp64, else its values in fp32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _fitting(what: str, pair: FactorPair | None, factors: Factors) -> FactorPair:
    if pair is None:
        raise ValueError(f"the metric reads the {what}, which the statistics lack")
    if pair.A.shape != factors.A.shape or pair.B.shape != factors.B.shape:
        raise ValueError(
            f"the {what} of shapes {tuple(pair.A.shape)} and {tuple(pair.B.shape)} does not fit factors of shapes "
            f"{tuple(factors.A.shape)} and {tuple(factors.B.shape)}"
        )
    return FactorPair(at_least_fp32(pair.A), at_least_fp32(pair.B))
