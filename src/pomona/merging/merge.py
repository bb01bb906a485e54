"""Merge adapters without the model: one module at a time, over the union of their modules in the model's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch

from pomona.adapters.carried_config import carried
from pomona.adapters.compatible import adapter_name, check_compatible
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.full_tensors import merged_whole
from pomona.adapters.model_order import model_order
from pomona.adapters.truncated import Loss, Truncated
from pomona.errors import InputError
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.finite import NO_CONVERGENCE, is_finite, not_finite
from pomona.merging.norm_weights import WeightRule, norm_weights
from pomona.merging.rank_loss import rank_loss, rank_warning
from pomona.merging.slabs import Slabs
from pomona.merging.weights import Weight, module_weights
from pomona.seeding import derive_seed


def merge(
    adapters: Sequence[Adapter],
    method: str = "svd",
    weights: Sequence[Weight] | WeightRule | None = None,
    rank: int | None = None,
    seed: int = 0,
    **parameters: object,
) -> Adapter:
    """Merge adapters into one.

    A module is merged from the adapters that have it with rank >= 1 and a non-zero weight; if there are none, its update is zero.
    Only one module's inputs are in memory at a time, besides the result.

    Args:
        adapters: one or more.
        method: a name in `merge_methods`.
        weights: w_k, one for each adapter, not normalised: a finite number, a list of them over the depth of the model, or entries
            of `filter` and `value` (`pomona.merging.weights`); `nan`: inverse to the norm of each adapter's update
            (`pomona.merging.norm_weights`); None: 1 each.
        rank: the largest allowed rank of a module, >= 1; None: the method's default.
        seed: root seed of the random streams; each module has its own, independent of the order.
        parameters: the method's hyperparameters.

    Returns:
        An adapter of fp32 factors with scaling 1, whose provenance holds `method`, `parameters`, `weights`, `weight_rule` if one
        was given, `rank`, `seed`,
        `rank_loss` (see `pomona.merging.rank_loss`), `sources`, the `warnings` of `check_compatible` and of a large loss by
        the rank, and the `carried` tensors.

    Raises:
        InputError: no adapters, weights that do not fit, a rank below 1, an unknown method or parameter, or adapters that are
            incompatible or have different whole tensors; a module's result is not finite, or float32 does not hold its update.
    """
    if not adapters:
        raise InputError("no adapters to merge", fix="Give at least one")
    chosen = merge_methods.create(method, parameters)
    if rank is not None and rank < 1:
        raise InputError("must be at least 1", field="rank", value=rank)
    rule = weights if isinstance(weights, str) else None
    if rule not in (None, *get_args(WeightRule)):
        raise InputError("no such weight rule", field="weights", value=rule, fix="Give nan, or a weight for each adapter")
    given: list[Weight] = [1.0] * len(adapters) if weights is None or isinstance(weights, str) else list(weights)
    if len(given) != len(adapters):
        raise InputError(f"{len(adapters)} adapters need {len(adapters)} weights", field="weights", value=given)
    whole, about_whole = merged_whole([(adapter_name(adapter, place), adapter) for place, adapter in enumerate(adapters)])
    warnings = check_compatible(adapters) + about_whole
    if rule is not None:
        given = norm_weights(adapters, given)
    modules = sorted({module for adapter in adapters for module in adapter}, key=model_order)
    weights_of = module_weights(given, modules)
    merged: dict[str, Factors] = {}
    losses: dict[str, Loss] = {}
    generator, slabs = torch.Generator(), Slabs()
    for module in modules:
        generator.manual_seed(derive_seed(seed, "merge", module))
        try:
            result = _merge_module(module, adapters, weights_of[module], chosen, rank, generator)
        except NO_CONVERGENCE as error:
            raise not_finite(module, adapters, weights_of[module]) from error
        if not is_finite(result):
            raise not_finite(module, adapters, weights_of[module])
        merged[module] = Factors(slabs.keep(result.A), slabs.keep(result.B))
        if isinstance(result, Truncated):
            losses[module] = result.loss
    warnings += rank_warning(losses, {module: one.rank for module, one in merged.items()})
    named = [(adapter_name(adapter, place), adapter.provenance.get("commit")) for place, adapter in enumerate(adapters)]
    commits = {name: commit for name, commit in named if commit is not None}
    provenance: dict[str, object] = {
        "method": method,
        "parameters": parameters,
        "weights": given,
        **({"weight_rule": rule} if rule else {}),
        "rank": rank,
        "seed": seed,
        "rank_loss": rank_loss(losses),
        "sources": [name for name, _ in named],
        **({"commits": commits} if commits else {}),
        **carried(adapters),
        "warnings": warnings,
    }
    base_model = next((one.base_model for one in adapters if one.base_model), None)
    embeddings = frozenset[str]().union(*(adapter.embeddings for adapter in adapters))
    return Adapter(merged, base_model, provenance, embeddings, whole)


def _merge_module(
    module: str,
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    method: MergeMethod,
    rank: int | None,
    generator: torch.Generator,
) -> Factors:
    present = [(adapter[module], weight) for adapter, weight in zip(adapters, weights, strict=True) if module in adapter]
    taking_part = [(one, weight) for one, weight in present if weight != 0 and one.rank > 0]
    if not taking_part:
        return _no_update(present[0][0])
    factors, w_K = zip(*taking_part, strict=True)
    return method.merge(factors, w_K, rank, generator)


def _no_update(like: Factors) -> Factors:
    """A zero update of rank 1, of the same shape."""
    A_RI, B_OR = (
        side.new_zeros(shape, dtype=torch.float32)
        for side, shape in ((like.A, (1, like.in_features)), (like.B, (like.out_features, 1)))
    )
    return Factors(A_RI, B_OR)
