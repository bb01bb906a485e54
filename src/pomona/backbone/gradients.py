"""Gradients of the merged factors, and AdaLoRA's averages of their sensitivity, for the importance metrics that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.stacks import Stack
from pomona.importance import FactorPair, Smoothed


class Gradients:
    """The last step's gradient by the merged factors of the modules of each stack, in fp32, and averages over the steps so far.

    With `smoothing = (b1, b2)` (Zhang et al. 2023, AdaLoRA), from zero on, W a merged factor and g the gradient at it:

        I = |W * g|;  mean = b1 mean + (1 - b1) I;  uncertainty = b2 uncertainty + (1 - b2) |I - mean|, with the new mean

    Args:
        attachment: whose modules are observed.
        smoothing: shares (b1, b2) in [0, 1) that the averages keep at a step; None keeps no averages.
    """

    def __init__(self, attachment: Attachment, smoothing: tuple[float, float] | None = None) -> None:
        self._stacks = attachment.stacks
        self._smoothing = smoothing
        self._gradients: dict[Stack, FactorPair] = {}
        self._smoothed: dict[Stack, Smoothed] = {}

    @torch.no_grad()
    def observe(self) -> None:
        """Take in an optimizer step's gradients: summed over its batches and ranks, not yet clipped, before the factors move.

        A module that the loss does not depend on has the gradient 0.
        """
        for stack in self._stacks:
            gradient = self._gradients[stack] = FactorPair(*(side.float() for side in stack.merged_gradient()))
            if self._smoothing:
                factors = stack.effective()
                W = FactorPair(factors.A, factors.B)
                before = self._smoothed.get(stack) or Smoothed(_zeros(W), _zeros(W))
                self._smoothed[stack] = _smooth(before, W, gradient, *self._smoothing)

    def gradient(self, stack: Stack) -> FactorPair | None:
        """The last step's gradient; None before the first."""
        return self._gradients.get(stack)

    def smoothed(self, stack: Stack) -> Smoothed | None:
        """The averages so far; None before the first step, and without smoothing."""
        return self._smoothed.get(stack)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, module by module; `load_state` takes it back."""
        kinds = {"gradient": self._gradients}
        kinds |= {"mean": {stack: one.mean for stack, one in self._smoothed.items()}}
        kinds |= {"uncertainty": {stack: one.uncertainty for stack, one in self._smoothed.items()}}
        return {
            f"{path}.{kind}.{side}": own
            for kind, pairs in kinds.items()
            for stack, pair in pairs.items()
            for side, tensor in pair._asdict().items()
            for path, own in zip(stack.paths, tensor.unbind(), strict=True)
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""

        def found(kind: str) -> Iterator[tuple[Stack, FactorPair]]:
            for stack in self._stacks:
                if f"{stack.paths[0]}.{kind}.A" in state:
                    yield (
                        stack,
                        FactorPair(*(torch.stack([state[f"{path}.{kind}.{side}"] for path in stack.paths]) for side in "AB")),
                    )

        self._gradients = dict(found("gradient"))
        uncertainties = dict(found("uncertainty"))
        self._smoothed = {stack: Smoothed(mean, uncertainties[stack]) for stack, mean in found("mean")}


def _smooth(before: Smoothed, factors: FactorPair, gradient: FactorPair, keep_mean: float, keep_uncertainty: float) -> Smoothed:
    means, uncertainties = [], []
    for W, g, mean, uncertainty in zip(factors, gradient, before.mean, before.uncertainty, strict=True):
        sensitivity = (W.float() * g).abs()
        means.append(keep_mean * mean + (1 - keep_mean) * sensitivity)
        uncertainties.append(keep_uncertainty * uncertainty + (1 - keep_uncertainty) * (sensitivity - means[-1]).abs())
    return Smoothed(FactorPair(*means), FactorPair(*uncertainties))


def _zeros(factors: FactorPair) -> FactorPair:
    return FactorPair(torch.zeros_like(factors.A, dtype=torch.float32), torch.zeros_like(factors.B, dtype=torch.float32))
