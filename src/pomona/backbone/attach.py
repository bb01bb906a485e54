"""The trainable merge: adapters laid side by side on the frozen modules of a model.

`n` adapters on one module become one pair whose columns are theirs: A = [A_1; ...; A_n], B = [B_1 ... B_n], with the
scaling of each column kept apart, y = base(x) + B (s * (A x)). That is the exact sum of the n updates without cross terms,
it costs two products instead of 2n, and its gradients are those of the n adapters trained side by side.

Axes: R joint rank, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pomona.adapters.compatible import check_compatible
from pomona.adapters.factors import Adapter, Factors
from pomona.backbone.load import Backbone, is_transposed, linear_shape
from pomona.errors import InputError, suggest
from pomona.merging.weights import Weight, module_weights


class Observer(Protocol):
    """Sees what flows through each adapted module while it trains."""

    def __call__(self, module: str, inputs: Tensor, hidden: Tensor) -> None:
        """Take in a module's inputs [..., I] and scaled hidden values s * (A x) [..., R]; neither may be changed."""


class AdaptedLinear(nn.Module):
    """A frozen linear module with a trainable low-rank update beside it.

    Args:
        path: the module's path in the model.
        base: the frozen module.
        factors: the adapters' factors on this module, in order.
        weights: their merge weights.
        dropout: share of input entries dropped before A while training, in [0, 1).
    """

    def __init__(self, path: str, base: nn.Module, factors: Sequence[Factors], weights: Sequence[float], dropout: float) -> None:
        super().__init__()
        weight: Tensor = base.weight  # pyright: ignore[reportAssignmentType]
        place = {"device": weight.device, "dtype": torch.float32}
        self.path = path
        self.base = base
        self.dropout = dropout
        self.A = nn.Parameter(torch.cat([pair.A.detach().to(**place) for pair in factors]))
        self.B = nn.Parameter(torch.cat([pair.B.detach().to(**place) for pair in factors], dim=1))
        scales = [weight * pair.scaling for pair, weight in zip(factors, weights, strict=True) for _ in range(pair.rank)]
        self.register_buffer("scale_R", torch.tensor(scales, **place), persistent=False)
        self.scale_R: Tensor
        self.observer: Observer | None = None
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        """`base(x) + B (scale * (A dropout(x)))`, or `base(x)` alone where the update is folded into the base."""
        y = self.base(x)
        if self.folded:
            return y
        inputs = F.dropout(x, self.dropout, self.training).to(self.A.dtype)
        hidden = F.linear(inputs, self.A) * self.scale_R
        if self.observer is not None and self.training:
            self.observer(self.path, x, hidden)
        return y + F.linear(hidden, self.B).to(y.dtype)

    def effective(self) -> Factors:
        """The factors with the scaling folded into A, sharing B: what importance is measured on."""
        return Factors(self.A.detach() * self.scale_R[:, None], self.B.detach())

    def export(self) -> Factors:
        """A copy of the factors with the scaling folded into B. Zeros stay zeros."""
        return Factors(self.A.detach().clone(), self.B.detach() * self.scale_R)


@dataclass(frozen=True, eq=False)
class Attachment:
    """The adapted modules of a backbone, in the model's order."""

    backbone: Backbone
    layers: Mapping[str, AdaptedLinear]

    def parameters(self) -> dict[str, nn.Parameter]:
        """`path.A` and `path.B` -> parameter, in order."""
        return {f"{path}.{side}": getattr(layer, side) for path, layer in self.layers.items() for side in ("A", "B")}

    def export(self) -> Adapter:
        """The update as it stands, as one adapter with scaling 1, on the CPU."""
        factors = {}
        for path, layer in self.layers.items():
            pair = layer.export()
            factors[path] = Factors(pair.A.cpu(), pair.B.cpu())
        transposed = any(is_transposed(layer.base) for layer in self.layers.values())
        return Adapter(factors, self.backbone.name, {"fan_in_fan_out": transposed})

    def train(self, mode: bool) -> None:
        """Turn dropout on or off; the frozen model stays in eval mode."""
        for layer in self.layers.values():
            layer.train(mode)
            layer.base.eval()

    def observe(self, observer: Observer | None) -> None:
        """Show every adapted module's inputs to `observer` from now on, in training passes only; None ends it."""
        for layer in self.layers.values():
            layer.observer = observer

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Within the block the update is part of the base weights: nothing extra to compute. Leaving restores them bit for bit.

        Raises:
            ValueError: within another such block, which would add the update twice.
        """
        if any(layer.folded for layer in self.layers.values()):
            raise ValueError("the update is folded already")
        kept: dict[str, Tensor] = {}
        try:
            for path, layer in self.layers.items():
                weight: Tensor = layer.base.weight  # pyright: ignore[reportAssignmentType]
                kept[path] = weight.detach().clone()
                delta = layer.export().delta()
                weight.data.add_((delta.T if is_transposed(layer.base) else delta).to(weight.dtype))
                layer.folded = True
            yield
        finally:
            for path, weight in kept.items():
                layer = self.layers[path]
                layer.base.weight.data.copy_(weight)  # pyright: ignore[reportArgumentType, reportCallIssue]
                layer.folded = False


@contextmanager
def attached(
    backbone: Backbone, adapters: Sequence[Adapter], weights: Sequence[Weight] | None = None, dropout: float = 0.0
) -> Iterator[Attachment]:
    """Attach adapters for the length of a block; leaving puts the model back as it was.

    Args:
        backbone: the frozen model.
        adapters: one or more; a module that only some of them adapt gets those.
        weights: one merge weight an adapter, for all modules, over the depth or by module as `pomona.merging.weights` has it; 1
            each by default.
        dropout: while training, share of A's input entries that is dropped, in [0, 1).

    Raises:
        InputError: the adapters do not fit each other or the model; weights that do not say what a module gets.
    """
    chosen = [1.0] * len(adapters) if weights is None else list(weights)
    linear = backbone.linear_modules()
    check_compatible(adapters, {path: linear_shape(module) for path, module in linear.items()})
    adapted = [path for path in linear if any(path in adapter for adapter in adapters)]
    layers: dict[str, AdaptedLinear] = {}
    for path, w_K in module_weights(chosen, adapted).items():
        present = [(adapter[path], weight) for adapter, weight in zip(adapters, w_K, strict=True) if path in adapter]
        factors, scales = zip(*present, strict=True)
        layers[path] = AdaptedLinear(path, linear[path], factors, scales, dropout)
    try:
        for path, layer in layers.items():
            backbone.model.set_submodule(path, layer)
        attachment = Attachment(backbone, layers)
        attachment.train(False)
        yield attachment
    finally:
        for path, layer in layers.items():
            backbone.model.set_submodule(path, layer.base)


def new_adapter(backbone: Backbone, target_modules: Sequence[str], rank: int, alpha: float, generator: torch.Generator) -> Adapter:
    """An untrained LoRA: A uniform in +-1/sqrt(I) (Kaiming, as PEFT draws it), B zero, so that its update is zero.

    Args:
        backbone: the model it is for.
        target_modules: last parts of module paths, such as `q_proj`.
        rank: R, >= 1.
        alpha: scaling is alpha / rank.
        generator: a CPU stream, so that the draw is the same on every device.

    Raises:
        InputError: a target matches no linear module.
    """
    linear = backbone.linear_modules()
    endings = {path.rpartition(".")[2] for path in linear}
    for target in target_modules:
        if target not in endings:
            raise InputError(
                "the model has no such linear module", field="target_modules", value=target, mend=suggest(target, endings)
            )
    factors = {}
    for path, module in linear.items():
        if path.rpartition(".")[2] in target_modules:
            out_features, in_features = linear_shape(module)
            bound = in_features**-0.5
            A_RI: Float[Tensor, "R I"] = (torch.rand((rank, in_features), generator=generator) * 2 - 1) * bound
            factors[path] = Factors(A_RI, torch.zeros(out_features, rank), alpha / rank)
    return Adapter(factors, backbone.name)
