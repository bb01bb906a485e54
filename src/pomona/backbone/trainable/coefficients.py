"""Coefficients: one trained number for each (adapter, unit), which multiplies that part of the adapter's update.

`delta_m = sum_k m_mk f(c_uk) s_k B_k A_k` for module m in unit u, arXiv 2602.12323. `c` is trained, the factors need not be. `f` is
leaky ReLU, or a gate that is open (1) or closed (0). The merge weight in force is `m f(c)`; the multiplier `m` is 1, but for gates,
and where modules of one unit have different given weights: there it is the given weight, and c starts at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomona.adapters import layer_number
from pomona.errors import InputError

if TYPE_CHECKING:
    from pomona.backbone.trainable.base import AdaptedModule

Unit = Literal["adapter", "layer", "module", "component"]

OPEN = 0.5
"""The smallest value at which a binary gate is open."""


@dataclass(frozen=True)
class Coefficients:
    """How the merge weights of all adapters are trained, those of frozen ones too.

    Args:
        unit: the part of an adapter that has one coefficient: the whole `adapter`, a `layer`, a `module`, or a `component` (a row
            of A with its column of B).
        starts: merge weight that each adapter starts at, by position; None: the given weights. An adapter whose given weight is 0
            takes no part all the same.
        negative_slope: slope of f below 0, in (0, 1]; 1 makes f the identity. Published: 0.01.
        binary: f is a gate: `f(c) = 1` if `c >= 0.5`, else 0, with the gradient of the identity (straight-through).

    Raises:
        InputError: an unknown unit; a slope that is not in (0, 1].
    """

    unit: Unit = "module"
    starts: tuple[float, ...] | None = None
    negative_slope: float = 0.01
    binary: bool = False

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise InputError(f"must be one of {', '.join(get_args(Unit))}", field="unit", value=self.unit)
        if not 0 < self.negative_slope <= 1:
            raise InputError("must be in (0, 1]", field="negative_slope", value=self.negative_slope)

    def f(self, c: Tensor) -> Tensor:
        """What multiplies the updates; differentiable."""
        if self.binary:
            return (c >= OPEN).to(c.dtype) + (c - c.detach())  # the second term is 0 and carries the gradient
        return F.leaky_relu(c, self.negative_slope)

    def inverse(self, weight: float) -> float:
        """The c at which `f(c)` is a merge weight; a gate starts at 1 or 0 itself."""
        return weight if self.binary or weight >= 0 else weight / self.negative_slope

    def start(self, place: int, weight: float) -> tuple[float, float]:
        """The merge weight that the adapter at this position starts at, without its multiplier; and the multiplier."""
        start = (1.0 if self.binary else weight) if self.starts is None else self.starts[place]
        return start, weight if self.binary else 1.0


def tie_units(modules: Mapping[str, AdaptedModule], coefficients: Coefficients) -> None:
    """Give the modules of a layer, or all modules, one parameter in place of one a module."""
    units: dict[int | None, list[AdaptedModule]] = {}
    for path, module in modules.items():
        units.setdefault(layer_number(path) if coefficients.unit == "layer" else None, []).append(module)
    for together in units.values():
        starts: dict[int, set[float]] = {}
        for module in together:
            for place, start in module.coefficient_starts().items():
                starts.setdefault(place, set()).add(start)
        first = [coefficients.inverse(_common(starts[place])) for place in sorted(starts)]
        parameter = nn.Parameter(torch.tensor(first, device=next(iter(together)).fixed_A.device))
        different = {place for place, found in starts.items() if len(found) > 1}
        for module in together:
            module.tie(parameter, sorted(starts), different)


def _common(starts: set[float]) -> float:
    """The start of the modules' common coefficient: 1 where it multiplies starts that differ."""
    return next(iter(starts)) if len(starts) == 1 else 1.0
