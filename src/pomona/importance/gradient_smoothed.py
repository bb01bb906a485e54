"""The `gradient_smoothed` metric: AdaLoRA's sensitivity, averaged over the steps and weighted by its uncertainty.

Axes: M stacked modules, R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.errors import InputError
from pomona.importance.base import ImportanceMetric, ModuleStatistics, importance_metrics, smoothed_of


@importance_metrics.register("gradient_smoothed")
@dataclass(frozen=True)
class GradientSmoothed(ImportanceMetric):
    """The averaged first-order change of the loss times its uncertainty, as in AdaLoRA: `I(W) = mean * uncertainty`.

    For each entry, over the steps, from 0: `s = |W * dL/dW|`, `mean <- beta_mean * mean + (1 - beta_mean) * s`, then
    `uncertainty <- beta_uncertainty * uncertainty + (1 - beta_uncertainty) * |s - mean|` (Zhang et al. 2023, AdaLoRA,
    arXiv 2303.10512, section 3.2). Who trains makes the averages; here they are multiplied.

    Deviation: AdaLoRA joins these scores into one for each singular triplet of its parametrisation P Lambda Q; here every
    entry of A and B keeps its own.

    Args:
        beta_mean: what the mean keeps of itself at a step, in [0, 1). At 0 it follows each step exactly, so that no uncertainty
            is left and every score is zero.
        beta_uncertainty: what the uncertainty keeps of itself at a step, in [0, 1).

    Raises:
        InputError: one of them is not in [0, 1).
    """

    needs_activations: ClassVar[bool] = False
    takes_stacks: ClassVar[bool] = True
    zero_is_unimportant: ClassVar[bool] = False

    beta_mean: float = 0.85
    beta_uncertainty: float = 0.85

    def __post_init__(self) -> None:
        for field in fields(self):
            beta = getattr(self, field.name)
            if not 0 <= beta < 1:
                raise InputError("must be in [0, 1)", field=field.name, value=beta)

    @property
    def smoothing(self) -> tuple[float, float]:
        """`(beta_mean, beta_uncertainty)`."""
        return self.beta_mean, self.beta_uncertainty

    @torch.no_grad()
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """See `ImportanceMetric.scores`; only `smoothed` is read, and of the factors the shapes."""
        mean, uncertainty = smoothed_of(factors, statistics)
        return mean.A * uncertainty.A, mean.B * uncertainty.B
