"""Pruning as selection among sources: units that belong to one merged adapter -> a mask for every adapter's own factors.

Two granularities. `source_layer`: the unit is an adapter's whole part in one layer. `source_rank`: the unit is one rank-one
component of an adapter in one module, row r of its A with column r of its B. Both need a merge that keeps adapters apart.

Axes: R rank of one adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.model_order import layer_number
from pomona.pruning.lowest import lowest_of_groups
from pomona.pruning.select import COMPONENTS, ModuleMasks, ModuleScores, Scope, by_layers, check_scope

SourceGranularity = Literal["source_layer", "source_rank"]

_Part = tuple[str, int]
"""A module and an adapter."""


@torch.no_grad()
def select_masks_by_source(
    scores: Mapping[str, Mapping[int, ModuleScores]],
    prune_ratio: float | Sequence[float],
    granularity: SourceGranularity,
    scope: Scope | None = None,
    *,
    together: bool,
    all_ties: bool = False,
) -> dict[str, dict[int, ModuleMasks]]:
    """The units of lowest importance, exactly `pruned_count(prune_ratio, n)` of every group of n that compete.

    | granularity | unit | importance | `tensor` | `layer` | `global` |
    | --- | --- | --- | --- | --- | --- |
    | `source_rank` | row r of A_k with column r of B_k | `mean_j A_k[r, j] * mean_o B_k[o, r]` | a module's | a layer's | all |
    | `source_layer` | adapter k in one layer | the sum over its components there | refused | a layer's | all |

    A module without a layer number is a layer of its own. Of equal units the first goes first: in the order of the modules, of the
    adapters, of the components; so masks are nested.

    Args:
        scores: module path -> adapter -> scores of the adapter's own factors; a module need not have every adapter.
        prune_ratio: share of the units to prune, in [0, 1]; or a share for each group of neighbouring layers, whose units then
            compete within their group at most.
        granularity: the unit.
        scope: which units compete; None is `global`.
        together: whether the units of all adapters compete with each other; else each adapter loses the same share of its own.
        all_ties: see `select_lowest`.

    Returns:
        module path -> adapter -> masks, as the scores are laid out; they may share memory.

    Raises:
        InputError: the granularity has no such scope; there are more groups than layers.
        ValueError: a ratio is not in [0, 1], or the importance of a unit is NaN.
    """
    scope, (group_of, ratio_of) = check_scope(granularity, scope), by_layers(scores, prune_ratio)
    parts = {(module, adapter): COMPONENTS.importance(own)[0] for module in scores for adapter, own in scores[module].items()}
    units = _units(parts, granularity)
    pruned = lowest_of_groups(
        {unit: parts[unit] if granularity == "source_rank" else _sum(parts, members) for unit, members in units.items()},
        {part: (group_of[part[0]], _group(scope, part[0]), None if together else part[1]) for part in units},
        {part: ratio_of[part[0]] for part in units},
        all_ties=all_ties,
    )
    of_parts = {one: pruned[unit].expand(len(parts[one])) for unit, members in units.items() for one in members}
    return {
        module: {adapter: COMPONENTS.masks([of_parts[module, adapter]], one) for adapter, one in own.items()}
        for module, own in scores.items()
    }


def _units(parts: Iterable[_Part], granularity: SourceGranularity) -> dict[_Part, list[_Part]]:
    """The parts that go as one, or whose components compete by themselves, under the first of them."""
    units: dict[object, list[_Part]] = {}
    for module, adapter in parts:
        unit = (module if granularity == "source_rank" else _layer(module), adapter)
        units.setdefault(unit, []).append((module, adapter))
    return {members[0]: members for members in units.values()}


def _sum(parts: Mapping[_Part, Float[Tensor, " R"]], members: Sequence[_Part]) -> Float[Tensor, " 1"]:
    """The importance of all that an adapter has in a layer."""
    return torch.stack([parts[one].sum() for one in members]).sum()[None]


def _layer(module: str) -> object:
    number = layer_number(module)
    return module if number is None else number


def _group(scope: Scope, module: str) -> object:
    """What units with one value of this compete in."""
    return {"tensor": module, "layer": _layer(module), "global": None}[scope]
