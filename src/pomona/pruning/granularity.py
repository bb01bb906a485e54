"""What is pruned together, and what competes: scores of all modules -> a mask for every factor.

Two choices. The granularity is the unit that goes or stays as a whole: an entry, a rank-one component, a module. The scope says
which units are ranked together: those of one tensor, of one layer, or all. Every group of n competing units loses exactly
`pruned_count(prune_ratio, n)` of them.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pomona.adapters.order import layer_number
from pomona.errors import InputError
from pomona.pruning.layer_groups import layer_groups
from pomona.pruning.select import select_lowest

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

    default_scope: ClassVar[Scope]
    scopes: ClassVar[tuple[Scope, ...]]

    @abstractmethod
    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, " _"], ...]:
        """One module's units, a vector for each set of them that competes under scope `tensor`."""

    @abstractmethod
    def masks(self, pruned: Sequence[Bool[Tensor, " _"]], scores: ModuleScores) -> ModuleMasks:
        """The factors' masks, from those of the units; `pruned` has a vector for each of `importance`."""


class _Entries(_Units):
    default_scope = "tensor"
    scopes = ("tensor", "layer", "global")

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

    default_scope = "tensor"
    scopes = ("tensor", "layer", "global")

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
    default_scope = "global"
    scopes = ("layer", "global")

    def importance(self, scores: ModuleScores) -> tuple[Float[Tensor, " _"], ...]:
        return (torch.tensor([scores.update_size], dtype=torch.float64),)

    def masks(self, pruned: Sequence[Bool[Tensor, " _"]], scores: ModuleScores) -> ModuleMasks:
        gone = bool(pruned[0])
        return ModuleMasks(*(torch.full_like(matrix, gone, dtype=torch.bool) for matrix in (scores.A, scores.B)))


_GRANULARITIES: Mapping[Granularity, _Units] = {"parameter": _Entries(), "module": _Modules(), "rank": _Components()}


def default_scope(granularity: Granularity) -> Scope:
    """The scope that is meant where none is given: `global` for modules, else `tensor`."""
    return _GRANULARITIES[granularity].default_scope


def check_scope(granularity: Granularity, scope: Scope | None) -> Scope:
    """The scope in force: the one given, or the default.

    Raises:
        InputError: the granularity has no such scope: a module does not compete within one of its own tensors.
    """
    units = _GRANULARITIES[granularity]
    if scope is not None and scope not in units.scopes:
        raise InputError(
            f"granularity {granularity!r} has no such scope",
            field="pruning.scope",
            value=scope,
            mend=f"Use one of {', '.join(units.scopes)}",
        )
    return scope or units.default_scope


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
