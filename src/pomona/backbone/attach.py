"""Adapters attached to the frozen modules of a model, to be trained together as one update.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pomona.adapters.base_modules import respelled
from pomona.adapters.compatible import check_compatible
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.same_base import BASE
from pomona.adapters.targets import Targets
from pomona.backbone.base_copies import proven_copies
from pomona.backbone.base_modules import modules_of
from pomona.backbone.linear_modules import holds_update, is_transposed, linear_shape
from pomona.backbone.load import Backbone
from pomona.backbone.plain_weights import refuse_packed
from pomona.backbone.stacks import Stack, stacked
from pomona.backbone.trainable import AdaptedModule, Concat, TrainableMerge
from pomona.backbone.trainable.base import Observer, takes_part
from pomona.backbone.trainable.coefficients import tie_units
from pomona.errors import InputError, suggest
from pomona.merging.weights import Weight, module_weights


@dataclass(frozen=True, eq=False)
class Attachment:
    """What is attached to a backbone.

    Args:
        backbone: the frozen model.
        modules: path -> adapted module, in the model's order; some may have frozen adapters only.
    """

    backbone: Backbone
    modules: Mapping[str, AdaptedModule]

    @cached_property
    def layers(self) -> dict[str, AdaptedModule]:
        """The modules whose factors are trained in this run, in order."""
        return {path: module for path, module in self.modules.items() if module.trained}

    @cached_property
    def stacks(self) -> list[Stack]:
        """The `layers` in stacks; their parameters are views of the stacks' tensors from the first call on."""
        return stacked(self.layers)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The factors: `path.A` and `path.B` -> parameter, in order."""
        return {f"{path}.{side}": getattr(layer, side) for path, layer in self.layers.items() for side in ("A", "B")}

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """The merge weights or coefficients that are trained, in order: `path.weights` -> parameter.

        A parameter of several modules stands once, under the first of them.
        """
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for path, module in self.modules.items():
            if module.weights is not None:
                found.setdefault(id(module.weights), (f"{path}.weights", module.weights))
        return dict(found.values())

    def merge_weights(self) -> dict[str, list[float]]:
        """For each path the present merge weight of every adapter that was given, 0 where it takes no part."""
        return {path: module.merge_weights() for path, module in self.modules.items()}

    def component_weights(self) -> dict[str, list[list[float]]]:
        """For each path the merge weights of every adapter's components; empty unless components have coefficients."""
        found = {path: module.component_weights() for path, module in self.modules.items()}
        return {path: weights for path, weights in found.items() if weights is not None}

    def export(self) -> Adapter:
        """The update as it stands, as one adapter with scaling 1, on the CPU."""
        factors = {}
        for path, module in self.modules.items():
            pair = module.export()
            factors[path] = Factors(pair.A.cpu(), pair.B.cpu())
        transposed = any(is_transposed(module.base) for module in self.modules.values())
        return Adapter(factors, self.backbone.name, {"fan_in_fan_out": transposed, **_base(self.backbone)})

    def train(self, mode: bool) -> None:
        """Turn dropout on or off; the frozen model stays in eval mode."""
        for module in self.modules.values():
            module.train(mode)
            module.base.eval()

    def train_only(self, trained: Literal["factors", "coefficients"]) -> None:
        """From now on compute gradients of the factors alone, or of the merge weights alone."""
        for factor in self.parameters().values():
            factor.requires_grad_(trained == "factors")
        for weight in self.weight_parameters().values():
            weight.requires_grad_(trained == "coefficients")

    def observe(self, observer: Observer | None) -> None:
        """Show what every trained module reads to `observer` from now on, in every forward pass; None ends it."""
        for layer in self.layers.values():
            layer.observer = observer

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Within the block the update is part of the base weights: nothing extra to compute. Leaving restores them bit for bit.

        A weight that is not in float32 keeps its update beside it, as in training: folding into bfloat16 loses a third of the
        update, and the model that answers would not be the one that was trained and judged.

        Raises:
            ValueError: within another such block, which would add the update twice.
        """
        if any(layer.folded for layer in self.modules.values()):
            raise ValueError("the update is folded already")
        kept: dict[str, Tensor] = {}
        try:
            for path, layer in self.modules.items():
                if not holds_update(layer.base):
                    continue
                weight: Tensor = layer.base.weight  # pyright: ignore[reportAssignmentType]
                kept[path] = weight.detach().clone()
                delta = layer.export().delta()
                weight.data.add_((delta.T if is_transposed(layer.base) else delta).to(weight.dtype))
                layer.folded = True
            yield
        finally:
            for path, weight in kept.items():
                layer = self.modules[path]
                layer.base.weight.data.copy_(weight)  # pyright: ignore[reportArgumentType, reportCallIssue]
                layer.folded = False


@contextmanager
def attached(
    backbone: Backbone,
    adapters: Sequence[Adapter],
    weights: Sequence[Weight] | None = None,
    dropout: float = 0.0,
    how: TrainableMerge | None = None,
) -> Iterator[Attachment]:
    """Attach adapters for the length of a block; leaving puts the model back as it was.

    A module gets the adapters that have it and whose weight there is not 0; without any it is left alone.

    Args:
        backbone: the frozen model.
        adapters: one or more, of any ranks and modules.
        weights: one merge weight an adapter, for all modules, over the depth or by module as `pomona.merging.weights` has it; 1
            each by default.
        dropout: while training, share of A's input entries that is dropped, in [0, 1).
        how: how they make one update, and which of them are trained; by default `concat` with all of them.

    Raises:
        InputError: the adapters do not fit each other or the model; weights that do not say what a module gets, or leave out
            every adapter; no adapter that is trained; a module whose weight is not a plain float matrix.
        ValueError: a frozen position that no adapter has.
    """
    linear = backbone.linear_modules()
    refuse_packed({path: linear[path] for path in linear if any(path in adapter for adapter in adapters)})
    given = [1.0] * len(adapters) if weights is None else list(weights)
    modules = _adapted_modules(backbone, adapters, given, dropout, how or Concat())
    try:
        for path, module in modules.items():
            backbone.model.set_submodule(path, module)
        attachment = Attachment(backbone, modules)
        attachment.train(False)
        yield attachment
    finally:
        for path, module in modules.items():
            backbone.model.set_submodule(path, module.base)


def _adapted_modules(
    backbone: Backbone, adapters: Sequence[Adapter], weights: Sequence[Weight], dropout: float, how: TrainableMerge
) -> dict[str, AdaptedModule]:
    if not how.frozen <= set(range(len(adapters))):
        raise ValueError(f"frozen {sorted(how.frozen)}: there are {len(adapters)} adapters, counted from 0")
    linear = backbone.linear_modules()
    known = modules_of(backbone.model)
    adapters = [respelled(adapter, known) for adapter in adapters]
    check_compatible(adapters, known)
    for adapter in adapters:
        proven_copies(adapter, backbone)
    adapted = [path for path in linear if any(path in adapter for adapter in adapters)]
    modules: dict[str, AdaptedModule] = {}
    for path, w_K in module_weights(weights, adapted).items():
        factors = [adapter.factors.get(path) for adapter in adapters]
        if any(takes_part(pair, weight) for pair, weight in zip(factors, w_K, strict=True)):
            modules[path] = how.attach(path, linear[path], factors, w_K, dropout)
    if not modules:
        raise InputError(
            "no adapter takes part in any module", field="weights", value=weights, fix="Give one a weight that is not 0"
        )
    if how.coefficients is not None and how.coefficients.unit in ("adapter", "layer"):
        tie_units(modules, how.coefficients)
    if not any(module.trained or module.weights is not None for module in modules.values()):
        raise InputError("there is nothing left to train", field="frozen", value=sorted(how.frozen), fix="Freeze fewer adapters")
    return modules


def new_adapter(
    backbone: Backbone, target_modules: Sequence[str] | str, rank: int, alpha: float, generator: torch.Generator
) -> Adapter:
    """An untrained LoRA: A uniform in +-1/sqrt(I) (Kaiming, as PEFT draws it), B zero, so that its update is zero.

    Args:
        backbone: the model it is for.
        target_modules: see `target_paths`.
        rank: R, >= 1.
        alpha: scaling is alpha / rank.
        generator: a CPU stream, so that the draw is the same on every device.

    Raises:
        InputError: a target matches no linear module, or one whose weight is not a plain float matrix.
    """
    linear = backbone.linear_modules()
    factors = {}
    for path in target_paths(backbone, target_modules):
        out_features, in_features = linear_shape(linear[path])
        bound = in_features**-0.5
        A_RI: Float[Tensor, "R I"] = (torch.rand((rank, in_features), generator=generator) * 2 - 1) * bound
        factors[path] = Factors(A_RI, torch.zeros(out_features, rank), alpha / rank)
    return Adapter(factors, backbone.name, _base(backbone))


def _base(backbone: Backbone) -> dict[str, object]:
    """What an adapter's provenance says of the model that it is trained on."""
    identity = backbone.base.identity
    return {} if identity is None else {BASE: identity.as_json()}


def target_paths(backbone: Backbone, target_modules: Sequence[str] | str) -> list[str]:
    """The paths of the linear modules that are named as in PEFT's `target_modules`, in the model's order.

    Args:
        backbone: the model.
        target_modules: a list of paths or of their last parts (`q_proj`, `self_attn.q_proj`); or one text: `all-linear`, every
            linear module but the output head, or a regular expression for whole paths.

    Raises:
        InputError: an entry of the list, or the expression, matches no linear module, or one whose weight is not a plain float
            matrix.
    """
    linear = backbone.linear_modules()
    paths = list(linear)
    endings = {path.rpartition(".")[2] for path in paths}
    for target in [target_modules] if isinstance(target_modules, str) else target_modules:
        wanted = Targets(target_modules if isinstance(target_modules, str) else [target])
        wanted.prepare(paths)
        if all(wanted.leaves_out(path) for path in paths):
            # Of an expression the last word is most likely the module's name.
            name = (re.findall(r"\w+", target) or [target])[-1]
            whole = f"A text is a regular expression for whole paths, such as {paths[0]!r}; names stand in a list. "
            fix = (whole if isinstance(target_modules, str) else "") + suggest(name, endings)
            raise InputError("the model has no such linear module", field="target_modules", value=target, fix=fix)
    wanted = Targets(target_modules)
    wanted.prepare(paths)
    found = {path: module for path, module in linear.items() if wanted.leaves_out(path) is None}
    refuse_packed(found)
    return list(found)
