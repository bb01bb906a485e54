"""Pruning as selection among sources: units that belong to one merged adapter -> a mask for every adapter's own factors.

Two granularities. `source_layer`: the unit is an adapter's whole part in one layer. `source_rank`: the unit is one rank-one
component of an adapter in one module, row r of its A with column r of its B. Both need a merge that keeps adapters apart.

Axes: R rank of one adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pomona.adapters.model_order import layer_number
from pomona.pruning.select import COMPONENTS, ModuleMasks, ModuleScores, Scope, check_scope, layer_groups, select_lowest

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
        module path -> adapter -> masks, as the scores are laid out, each with memory of its own.

    Raises:
        InputError: the granularity has no such scope; there are more groups than layers.
        ValueError: a ratio is not in [0, 1], or the importance of a unit is NaN.
    """
    scope = check_scope(granularity, scope)
    ratios = prune_ratio if isinstance(prune_ratio, Sequence) else (prune_ratio,)
    pruned: dict[_Part, Bool[Tensor, " R"]] = {}
    for modules, ratio in zip(layer_groups(scores, len(ratios)), ratios, strict=True):
        parts = {(module, adapter): COMPONENTS.importance(own)[0] for module in modules for adapter, own in scores[module].items()}
        find = _components if granularity == "source_rank" else _layers
        pruned |= find(parts, ratio, scope, together=together, all_ties=all_ties)
    return {
        module: {adapter: COMPONENTS.masks([pruned[module, adapter]], one) for adapter, one in own.items()}
        for module, own in scores.items()
    }


def _components(
    parts: Mapping[_Part, Float[Tensor, " R"]], ratio: float, scope: Scope, *, together: bool, all_ties: bool
) -> dict[_Part, Bool[Tensor, " R"]]:
    groups: dict[object, list[_Part]] = {}
    for module, adapter in parts:
        groups.setdefault((_group(scope, module), None if together else adapter), []).append((module, adapter))
    found: dict[_Part, Tensor] = {}
    for members in groups.values():
        mask = select_lowest(torch.cat([parts[one] for one in members]), ratio, all_ties=all_ties)
        found |= zip(members, mask.split([len(parts[one]) for one in members]), strict=True)
    return found


def _layers(
    parts: Mapping[_Part, Float[Tensor, " R"]], ratio: float, scope: Scope, *, together: bool, all_ties: bool
) -> dict[_Part, Bool[Tensor, " R"]]:
    """As `_components` of parts that have one component each: all that an adapter has in a layer, under its first module there."""
    units: dict[tuple[object, int], list[_Part]] = {}
    for module, adapter in parts:
        units.setdefault((_layer(module), adapter), []).append((module, adapter))
    sums = {members[0]: torch.stack([parts[one].sum() for one in members]).sum()[None] for members in units.values()}
    chosen = _components(sums, ratio, scope, together=together, all_ties=all_ties)
    return {one: chosen[members[0]].expand(len(parts[one])) for members in units.values() for one in members}


def _layer(module: str) -> object:
    number = layer_number(module)
    return module if number is None else number


def _group(scope: Scope, module: str) -> object:
    """What units with one value of this compete in."""
    return {"tensor": module, "layer": _layer(module), "global": None}[scope]
