"""What is pruned together, and what competes: scores of all modules -> a mask for every factor, of exact counts.

Two choices. The granularity is the unit that goes or stays as a whole: an entry, a rank-one component, a module. The scope says
which units are ranked together: those of one tensor, of one layer, or all. Every group of n competing units loses exactly
`pruned_count(prune_ratio, n)` of them. Groups of neighbouring layers may have a ratio of their own, and each adapter a quota.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pomona.adapters.model_order import layer_number
from pomona.errors import InputError

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
    update_size: float


class ModuleMasks(NamedTuple):
    """What is pruned of one module's merged factors; True = pruned."""

    A: Bool[Tensor, "R I"]
    B: Bool[Tensor, "O R"]


class _Units(ABC):
    """One granularity: what its units are, how important each is, and which entries a unit consists of."""

    @abstractmethod
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, " _"], ...]:
        """One module's units, a vector for each set of them that competes under scope `tensor`."""

    @abstractmethod
    def masks(self, pruned: Sequence[Bool[Tensor, " _"]], scores: ModuleScores) -> ModuleMasks:
        """The factors' masks, from those of the units; `pruned` has a vector for each of `importance`."""


class _Entries(_Units):
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, " _"], ...]:
        return scores.A.reshape(-1), scores.B.reshape(-1)

    def masks(self, pruned: Sequence[Bool[Tensor, " _"]], scores: ModuleScores) -> ModuleMasks:
        A, B = pruned
        return ModuleMasks(A.reshape(scores.A.shape), B.reshape(scores.B.shape))


class _Components(_Units):
    """Row r of A with column r of B.

    Their importance is a product of means, so it does not depend on how the update is balanced between the two factors, and is 0
    where either half counts nothing. In fp64 on the CPU: the product of two small fp32 means would vanish.
    """

    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, " _"], ...]:
        A_R, B_R = (
            matrix.mean(dim=dim, dtype=torch.promote_types(matrix.dtype, torch.float32)).cpu().double()
            for matrix, dim in ((scores.A, 1), (scores.B, 0))
        )
        return (A_R * B_R,)

    def masks(self, pruned: Sequence[Bool[Tensor, " _"]], scores: ModuleScores) -> ModuleMasks:
        (pruned_R,) = pruned
        pruned_R = pruned_R.to(scores.A.device)
        return ModuleMasks(
            pruned_R[:, None].expand(scores.A.shape).contiguous(), pruned_R[None, :].expand(scores.B.shape).contiguous()
        )


class _Modules(_Units):
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, " _"], ...]:
        return (torch.tensor([scores.update_size], dtype=torch.float64),)

    def masks(self, pruned: Sequence[Bool[Tensor, " _"]], scores: ModuleScores) -> ModuleMasks:
        gone = bool(pruned[0])
        return ModuleMasks(*(torch.full_like(matrix, gone, dtype=torch.bool) for matrix in (scores.A, scores.B)))


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
        module path -> masks, in the order of `scores`, each with memory of its own.

    Raises:
        InputError: see `check_scope`; there are more groups than layers.
        ValueError: a ratio is not in [0, 1], or the importance of a unit is NaN.
    """
    if isinstance(prune_ratio, Sequence):
        found: dict[str, ModuleMasks] = {}
        for modules, share in zip(layer_groups(scores, len(prune_ratio)), prune_ratio, strict=True):
            found |= select_masks({module: scores[module] for module in modules}, share, granularity, scope, all_ties=all_ties)
        return {module: found[module] for module in scores}
    units, scope = _GRANULARITIES[granularity], check_scope(granularity, scope)
    importance = {(module, place): one for module in scores for place, one in enumerate(units.importance(scores[module]))}
    groups: dict[object, list[tuple[str, int]]] = {}
    for module, place in importance:
        groups.setdefault(_group(scope, module, place), []).append((module, place))
    pruned: dict[str, list[Tensor]] = {module: [] for module in scores}
    for members in groups.values():
        pooled = [importance[member] for member in members]
        mask = select_lowest(pooled[0] if len(pooled) == 1 else torch.cat(pooled), prune_ratio, all_ties=all_ties)
        for (module, _), part in zip(members, mask.split([len(one) for one in pooled]), strict=True):
            pruned[module].append(part if len(pooled) == 1 else part.clone())
    return {module: units.masks(pruned[module], scores[module]) for module in scores}


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
    ratios = prune_ratio if isinstance(prune_ratio, Sequence) else (prune_ratio,)
    found: dict[str, dict[int, ModuleMasks]] = {module: {} for module in scores}
    for modules, ratio in zip(layer_groups(scores, len(ratios)), ratios, strict=True):
        for adapter in sorted({adapter for module in modules for adapter in scores[module]}):
            own = {module: scores[module][adapter] for module in modules if adapter in scores[module]}
            for module, masks in select_masks(own, ratio, "parameter", scope, all_ties=all_ties).items():
                found[module][adapter] = masks
    return found


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


def pruned_count(prune_ratio: float, n: int) -> int:
    """How many of `n` entries are pruned: `floor(prune_ratio * n)`, meant in decimal. The only place that rounds.

    0.29 of 100 is 29, although `0.29 * 100` is 28.999999999999996 in binary: the product is rounded to nine decimals first.

    Args:
        prune_ratio: share of the entries to prune, in [0, 1].
        n: number of entries, >= 0.

    Raises:
        ValueError: the ratio is not in [0, 1], or n is negative.
    """
    if not 0.0 <= prune_ratio <= 1.0:
        raise ValueError(f"prune_ratio must be in [0, 1], got {prune_ratio!r}")
    if n < 0:
        raise ValueError(f"n must be >= 0, got {n!r}")
    return min(n, math.floor(round(prune_ratio * n, 9)))


@torch.no_grad()
def select_lowest(scores: Float[Tensor, "*shape"], prune_ratio: float, *, all_ties: bool = False) -> Bool[Tensor, "*shape"]:
    """The mask of the `pruned_count(prune_ratio, n)` lowest scores; True = pruned.

    Of equal scores the one with the lower flat (row-major) index is pruned first, so the mask is the one that a stable
    sort would give, and masks are nested: a lower ratio's mask lies within a higher one's.
    One selection finds the threshold, one comparison the mask; only scores that tie with the threshold are looked at again.

    Args:
        scores: importance of each entry, any shape, floating dtype.
        prune_ratio: in [0, 1].
        all_ties: whether all scores that equal the highest one pruned are pruned too, however many they are (the published code of
            GRASP: `score <= kthvalue`); where the count is 0, none is.

    Raises:
        ValueError: the ratio is not in [0, 1], or a score is NaN (it has no place in the order).
    """
    flat = scores.detach().reshape(-1)
    count = pruned_count(prune_ratio, flat.numel())
    if flat.numel() and bool(flat.max().isnan()):
        raise ValueError(f"{int(flat.isnan().sum())} of {flat.numel()} scores are NaN")
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _lowest(flat, count)
    mask = flat <= threshold
    surplus = int(torch.count_nonzero(mask)) - count
    if surplus and not all_ties:
        ties = (flat == threshold).nonzero().reshape(-1)
        mask[ties[-surplus:]] = False
    return mask.reshape(scores.shape)


def _lowest(flat: Float[Tensor, " n"], count: int) -> float | Tensor:
    """The `count`-th lowest value."""
    if flat.device.type != "cpu":
        return flat.kthvalue(count).values
    # On a CPU numpy's vectorised partition takes a tenth of the time of torch.kthvalue; numpy has no bfloat16.
    values = flat.float() if flat.dtype == torch.bfloat16 else flat
    return float(np.partition(values.numpy(), count - 1)[count - 1])
