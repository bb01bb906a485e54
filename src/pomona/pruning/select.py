"""What is pruned together, and what competes: scores of all modules -> a mask for every factor, of exact counts.

Two choices. The granularity is the unit that goes or stays as a whole: an entry, a rank-one component, a module. The scope says
which units are ranked together: those of one tensor, of one layer, or all. Every group of n competing units loses exactly
`pruned_count(prune_ratio, n)` of them. Groups of neighbouring layers may have a ratio of their own, and each adapter a quota.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pomona.adapters.model_order import layer_number
from pomona.errors import InputError
from pomona.pruning.lowest import lowest_of_groups

Granularity = Literal["parameter", "module", "rank"]
Scope = Literal["tensor", "layer", "global"]


class ModuleScores(NamedTuple):
    """How important one module's merged factors are.

    Args:
        A: score of each entry of A, >= 0, any floating dtype.
        B: score of each entry of B.
        update_size: `mean_ij |(B A)_ij| norm(x)_j`, >= 0; only granularity `module` reads it.
    """

    A: Float[Tensor, "R I"]
    B: Float[Tensor, "O R"]
    update_size: float | Float[Tensor, ""]


class ModuleMasks(NamedTuple):
    """What is pruned of one module's merged factors; True = pruned."""

    A: Bool[Tensor, "R I"]
    B: Bool[Tensor, "O R"]


class _Units(ABC):
    """One granularity: what its units are, how important each is, and which entries a unit consists of."""

    @abstractmethod
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, "..."], ...]:
        """One module's units, a tensor for each set of them that competes under scope `tensor`."""

    @abstractmethod
    def masks(self, pruned: Sequence[Bool[Tensor, "..."]], scores: ModuleScores) -> ModuleMasks:
        """The factors' masks, from those of the units; `pruned` has a tensor for each of `importance`."""


class _Entries(_Units):
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, "..."], ...]:
        return scores.A, scores.B

    def masks(self, pruned: Sequence[Bool[Tensor, "..."]], scores: ModuleScores) -> ModuleMasks:
        return ModuleMasks(*pruned)


class _Components(_Units):
    """Row r of A with column r of B.

    Their importance is a product of means, so it does not depend on how the update is balanced between the two factors, and is 0
    where either half counts nothing. In fp64: the product of two small fp32 means would vanish.
    """

    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, "..."], ...]:
        A_R, B_R = (
            _where_fp64_is(matrix.mean(dim=dim, dtype=torch.promote_types(matrix.dtype, torch.float32)))
            for matrix, dim in ((scores.A, 1), (scores.B, 0))
        )
        return (A_R.double() * B_R,)

    def masks(self, pruned: Sequence[Bool[Tensor, "..."]], scores: ModuleScores) -> ModuleMasks:
        (pruned_R,) = pruned
        pruned_R = pruned_R.to(scores.A.device)
        return ModuleMasks(
            pruned_R[:, None].expand(scores.A.shape).contiguous(), pruned_R[None, :].expand(scores.B.shape).contiguous()
        )


class _Modules(_Units):
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, "..."], ...]:
        size = scores.update_size
        return (size.reshape(1) if isinstance(size, Tensor) else torch.tensor([size], dtype=torch.float64),)

    def masks(self, pruned: Sequence[Bool[Tensor, "..."]], scores: ModuleScores) -> ModuleMasks:
        gone = pruned[0].to(scores.A.device)
        return ModuleMasks(*(gone.expand(matrix.shape).contiguous() for matrix in (scores.A, scores.B)))


def _where_fp64_is(tensor: Tensor) -> Tensor:
    """The tensor on its device, or on the CPU if the device has no fp64, as Apple's."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


COMPONENTS = _Components()
"""The rank-one components of a pair of factors as units."""

_GRANULARITIES: Mapping[Granularity, _Units] = {"parameter": _Entries(), "module": _Modules(), "rank": COMPONENTS}
_LARGE = ("module", "source_layer")  # these have no place within one tensor
_SCOPES: Mapping[str, tuple[Scope, ...]] = dict.fromkeys(_LARGE, ("layer", "global"))
_DEFAULTS: Mapping[str, Scope] = {"parameter": "tensor", "rank": "tensor"}


def check_scope(granularity: str, scope: Scope | None) -> Scope:
    """The scope in force: the one given, or the default: `tensor` for entries and components of merged factors, else `global`.

    Args:
        granularity: a `Granularity`, or a `SourceGranularity` of `pomona.pruning.sources`.
        scope: as a user gives it.

    Raises:
        InputError: the granularity has no such scope: a module does not compete within one of its own tensors.
    """
    scopes = _SCOPES.get(granularity, get_args(Scope))
    if scope is not None and scope not in scopes:
        raise InputError(
            f"granularity {granularity!r} has no such scope",
            field="pruning.scope",
            value=scope,
            fix=f"Use one of {', '.join(scopes)}",
        )
    return scope or _DEFAULTS.get(granularity, "global")


@torch.no_grad()
def select_masks(
    scores: Mapping[str, ModuleScores],
    prune_ratio: float | Sequence[float],
    granularity: Granularity = "parameter",
    scope: Scope | None = None,
    *,
    all_ties: bool = False,
) -> dict[str, ModuleMasks]:
    """The units of lowest importance, exactly `pruned_count(prune_ratio, n)` of every group of n that compete.

    | granularity | unit | importance | `tensor` | `layer` | `global` |
    | --- | --- | --- | --- | --- | --- |
    | `parameter` | an entry | its score | one factor's | one layer's | all |
    | `rank` | row r of A with column r of B | `mean_j A[r, j] * mean_o B[o, r]` | one module's | one layer's | all |
    | `module` | a module | `update_size` | refused | one layer's | all |

    The layer is the first number in the module's path; a module without one competes with itself. Of equal units the first
    goes first, in the order of the modules, A before B, flat index; so masks are nested: a lower ratio's lie within a higher one's.

    Args:
        scores: module path -> scores of its factors.
        prune_ratio: share of the units to prune, in [0, 1]; or a share for each group of neighbouring layers (`layer_groups`),
            whose units then compete within their group at most.
        granularity: what is pruned as a whole.
        scope: which units compete; None is the granularity's default, `global` for modules, else `tensor`.
        all_ties: see `select_lowest`; then a group may lose more than its count.

    Returns:
        module path -> masks, in the order of `scores`; they may share memory.

    Raises:
        InputError: see `check_scope`; there are more groups than layers.
        ValueError: a ratio is not in [0, 1], or the importance of a unit is NaN.
    """
    units, scope = _GRANULARITIES[granularity], check_scope(granularity, scope)
    group_of, ratio_of = by_layers(scores, prune_ratio)
    importance = {(module, place): one for module in scores for place, one in enumerate(units.importance(scores[module]))}
    pruned = lowest_of_groups(
        importance,
        {key: (group_of[key[0]], _group(scope, *key)) for key in importance},
        {key: ratio_of[key[0]] for key in importance},
        all_ties=all_ties,
    )
    found: dict[str, list[Tensor]] = {module: [] for module in scores}
    for (module, _), mask in pruned.items():
        found[module].append(mask)
    return {module: units.masks(found[module], scores[module]) for module in scores}


def by_layers(modules: Iterable[str], prune_ratio: float | Sequence[float]) -> tuple[dict[str, int], dict[str, float]]:
    """Each module's group of layers, and its ratio."""
    ratios = prune_ratio if isinstance(prune_ratio, Sequence) else (prune_ratio,)
    groups = list(enumerate(layer_groups(modules, len(ratios))))
    return {one: group for group, own in groups for one in own}, {one: ratios[group] for group, own in groups for one in own}


def _group(scope: Scope, module: str, place: int) -> object:
    """What units with one value of this compete in."""
    layer = layer_number(module)
    return {"tensor": (module, place), "layer": module if layer is None else layer, "global": None}[scope]


def select_masks_by_adapter(
    scores: Mapping[str, Mapping[int, ModuleScores]],
    prune_ratio: float | Sequence[float],
    scope: Scope | None = None,
    *,
    all_ties: bool = False,
) -> dict[str, dict[int, ModuleMasks]]:
    """`select_masks` of entries, for each adapter by itself: exactly the count of every factor of every adapter.

    A weight or a scaling multiplies all scores of an adapter's factor alike, so none of them moves a mask, on whichever side it
    stands. With scope `layer` or `global` the entries of one adapter compete over its layer, or over all its modules.

    Args:
        scores: module path -> adapter -> scores of the adapter's own factors; a module need not have every adapter.
        prune_ratio: share of each adapter's entries to prune, in [0, 1]; or a share for each group of neighbouring layers, which
            are groups of all modules.
        scope: which entries compete; None is `tensor`.
        all_ties: see `select_lowest`.

    Returns:
        module path -> adapter -> masks, as the scores are laid out.

    Raises:
        InputError: there are more groups than layers.
        ValueError: a ratio is not in [0, 1], or a score is NaN.
    """
    scope, (group_of, ratio_of) = scope or "tensor", by_layers(scores, prune_ratio)
    entries = {
        (module, adapter, place): side
        for module, own in scores.items()
        for adapter, one in own.items()
        for place, side in enumerate((one.A, one.B))
    }
    pruned = lowest_of_groups(
        entries,
        {key: (key[1], group_of[key[0]], _group(scope, key[0], key[2])) for key in entries},
        {key: ratio_of[key[0]] for key in entries},
        all_ties=all_ties,
    )
    return {
        module: {adapter: ModuleMasks(*(pruned[module, adapter, place] for place in (0, 1))) for adapter in own}
        for module, own in scores.items()
    }


def layer_groups(modules: Iterable[str], groups: int) -> list[list[str]]:
    """The modules in so many groups of neighbouring layers, from the first to the last.

    The numbers of layers differ by at most 1, the earlier groups have the more. A module that is in no layer, such as the head,
    belongs to the last group.

    Args:
        modules: paths; in each group they keep their order.
        groups: how many, >= 1.

    Raises:
        InputError: there are fewer layers than groups.
        ValueError: there is no group.
    """
    if groups < 1:
        raise ValueError(f"groups must be >= 1, got {groups!r}")
    number = {module: layer_number(module) for module in modules}
    layers = sorted({layer for layer in number.values() if layer is not None})
    if groups > max(1, len(layers)):
        problem = f"cannot have ratios for {groups} groups of layers: the adapters are on {len(layers)} layers"
        raise InputError(problem, field="controller", fix="Take fewer groups")
    least, more = divmod(len(layers), groups)
    sizes = [least + (group < more) for group in range(groups)]
    of_layer = dict(zip(layers, (group for group, size in enumerate(sizes) for _ in range(size)), strict=True))
    found: list[list[str]] = [[] for _ in range(groups)]
    for module, layer in number.items():
        found[groups - 1 if layer is None else of_layer[layer]].append(module)
    return found


def group_shares(entries: Mapping[str, int], groups: int) -> tuple[float, ...]:
    """Each group's share of all entries; the prune ratio over all is the mean of the groups' ratios by these shares.

    Args:
        entries: module path -> how many entries its merged factors have.
        groups: how many, as for `layer_groups`.

    Raises:
        InputError: there are fewer layers than groups.
    """
    total = sum(entries.values())
    return tuple(sum(entries[module] for module in group) / total for group in layer_groups(entries, groups))
