"""Gradients of the merged factors, and AdaLoRA's averages of their sensitivity, for the importance metrics that read them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.backbone.attach import Attachment
from pomona.importance import FactorPair, Smoothed


class Gradients:
    """The last step's gradient by each module's merged factors, in fp32, and averages over the steps so far.

    With `smoothing = (b1, b2)` (Zhang et al. 2023, AdaLoRA), from zero on, W a merged factor and g the gradient at it:

        I = |W * g|;  mean = b1 mean + (1 - b1) I;  uncertainty = b2 uncertainty + (1 - b2) |I - mean|, with the new mean

    Args:
        attachment: whose modules are observed.
        smoothing: shares (b1, b2) in [0, 1) that the averages keep at a step; None keeps no averages.
    """

    def __init__(self, attachment: Attachment, smoothing: tuple[float, float] | None = None) -> None:
        self._layers = attachment.layers
        self._smoothing = smoothing
        self._gradients: dict[str, FactorPair] = {}
        self._smoothed: dict[str, Smoothed] = {}

    @torch.no_grad()
    def observe(self) -> None:
        """Take in an optimizer step's gradients: summed over its batches and ranks, not yet clipped, before the factors move.

        A module that the loss does not depend on has the gradient 0.
        """
        for path, layer in self._layers.items():
            factors = layer.effective()
            found = layer.merged_gradient() or _zeros(factors)
            gradient = FactorPair(*(side.to(torch.float32, copy=True) for side in found))
            self._gradients[path] = gradient
            if self._smoothing:
                before = self._smoothed.get(path) or Smoothed(_zeros(factors), _zeros(factors))
                self._smoothed[path] = _smooth(before, factors, gradient, *self._smoothing)

    def gradient(self, module: str) -> FactorPair | None:
        """The last step's gradient; None before the first."""
        return self._gradients.get(module)

    def smoothed(self, module: str) -> Smoothed | None:
        """The averages so far; None before the first step, and without smoothing."""
        return self._smoothed.get(module)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; `load_state` takes it back."""
        pairs = {f"{path}.gradient": pair for path, pair in self._gradients.items()}
        pairs |= {f"{path}.mean": smoothed.mean for path, smoothed in self._smoothed.items()}
        pairs |= {f"{path}.uncertainty": smoothed.uncertainty for path, smoothed in self._smoothed.items()}
        return {f"{name}.{side}": tensor for name, pair in pairs.items() for side, tensor in pair._asdict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""

        def pair(name: str) -> FactorPair:
            return FactorPair(state[f"{name}.A"], state[f"{name}.B"])

        self._gradients = {path: pair(f"{path}.gradient") for path in self._layers if f"{path}.gradient.A" in state}
        self._smoothed = {
            path: Smoothed(pair(f"{path}.mean"), pair(f"{path}.uncertainty")) for path in self._layers if f"{path}.mean.A" in state
        }


def _smooth(before: Smoothed, factors: Factors, gradient: FactorPair, keep_mean: float, keep_uncertainty: float) -> Smoothed:
    means, uncertainties = [], []
    sides = zip((factors.A, factors.B), gradient, before.mean, before.uncertainty, strict=True)
    for W, g, mean, uncertainty in sides:
        sensitivity = (W.float() * g).abs()
        means.append(keep_mean * mean + (1 - keep_mean) * sensitivity)
        uncertainties.append(keep_uncertainty * uncertainty + (1 - keep_uncertainty) * (sensitivity - means[-1]).abs())
    return Smoothed(FactorPair(*means), FactorPair(*uncertainties))


def _zeros(factors: Factors) -> FactorPair:
    return FactorPair(torch.zeros_like(factors.A, dtype=torch.float32), torch.zeros_like(factors.B, dtype=torch.float32))
