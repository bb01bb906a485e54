"""Modules of one kind and shape, with each of their factors in one tensor: what is done to all of them is one operation.

An accelerator takes as long to be asked for an operation on one module's factors as on those of all; a CPU reads them in one go.

Axes: M modules, K adapters where a kind keeps them apart, R rank, I input features, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pomona.backbone.trainable.base import AdaptedModule
from pomona.importance import FactorPair, StackedFactors

_ALIGNED = 16
"""Entries to a multiple of which each module's factor is laid out: 64 bytes, as torch lays out a tensor of its own."""


@dataclass(frozen=True, eq=False)
class Stack:
    """M modules of one kind, whose parameters `A` are views of one tensor, and `B` of another.

    Args:
        modules: path -> module.
        A: [M, R, I], or [M, K, R, I]; its entries are the parameters'.
        B: [M, O, R], or [M, K, O, R].
    """

    modules: Mapping[str, AdaptedModule]
    A: Tensor
    B: Tensor

    @cached_property
    def paths(self) -> list[str]:
        """The modules' paths, in order."""
        return list(self.modules)

    @cached_property
    def _modules(self) -> list[AdaptedModule]:
        return list(self.modules.values())

    @cached_property
    def keeps_apart(self) -> bool:
        """See `AdaptedModule.keeps_apart`."""
        return self._modules[0].keeps_apart

    @torch.no_grad()
    def merged(self, A: Tensor, B: Tensor) -> StackedFactors:
        """`AdaptedModule.merged` of each module if these were the parameters; it may share `B`."""
        return StackedFactors(*self._modules[0].merge_stack(self._modules, A, B))

    def effective(self) -> StackedFactors:
        """`merged` of the present parameters."""
        return self.merged(self.A, self.B)

    def parts(self, A: Tensor, B: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Each trained adapter's part of tensors in the layout of `A` and `B`, of all modules: its position -> views."""
        return self._modules[0].parts(A, B)

    @torch.no_grad()
    def merged_gradient(self) -> FactorPair:
        """`AdaptedModule.merged_gradient` of each module, 0 where there is none; new tensors."""
        return self._modules[0].merged_gradient_stack(self._modules)


@torch.no_grad()
def stacked(modules: Mapping[str, AdaptedModule]) -> list[Stack]:
    """The modules in stacks, with their parameters moved into the stacks' tensors. Values and parameters stay the same.

    Args:
        modules: path -> module with trained factors.
    """
    alike: dict[object, dict[str, AdaptedModule]] = {}
    for path, module in modules.items():
        ranks = tuple((place, len(A), B.shape[-1]) for place, (A, B) in module.parts(module.A, module.B).items())
        kind = type(module), module.A.shape, module.B.shape, module.A.device, ranks
        alike.setdefault(kind, {})[path] = module
    return [
        Stack(own, _joined([one.A for one in own.values()]), _joined([one.B for one in own.values()])) for own in alike.values()
    ]


def _joined(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One tensor of which the parameters become views."""
    first = parameters[0].detach()
    length = math.ceil(first.numel() / _ALIGNED) * _ALIGNED
    joined = first.new_zeros(len(parameters), length)[:, : first.numel()].view(len(parameters), *first.shape)
    for part, parameter in zip(joined.unbind(), parameters, strict=True):
        part.copy_(parameter)
        parameter.data = part
    return joined
