"""Merge adapters without the model: one module at a time, the union of their modules in the model's order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pomona.adapters.compatible import adapter_name, check_compatible
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.order import model_order
from pomona.errors import InputError
from pomona.merging.base import merge_methods
from pomona.seeding import stream


def merge(
    adapters: Sequence[Adapter],
    method: str = "svd",
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    seed: int = 0,
    **parameters: object,
) -> Adapter:
    """Merge adapters into one.

    A module that some adapters do not have is merged from those that have it, with their weights.

    Args:
        adapters: one or more.
        method: a name in `merge_methods`.
        weights: w_k, one for each adapter, finite, not normalised; None: 1 each.
        rank: the largest rank that a module may get, >= 1; None: what the method does by itself.
        seed: root of the random streams; each module has its own, whatever the order.
        parameters: the method's hyperparameters.

    Returns:
        An adapter of fp32 factors with scaling 1, whose provenance holds `method`, `parameters`, `weights`, `rank`, `seed`,
        `sources`, `fan_in_fan_out` and the `warnings` of `check_compatible`.

    Raises:
        InputError: no adapters, weights that do not fit, a rank below 1, an unknown method or parameter, adapters that do not
            fit each other.
    """
    if not adapters:
        raise InputError("no adapters to merge", mend="Give at least one")
    chosen = merge_methods.create(method, parameters)
    if rank is not None and rank < 1:
        raise InputError("must be at least 1", field="rank", value=rank)
    w_K = _check_weights(weights, len(adapters))
    warnings = check_compatible(adapters)
    merged: dict[str, Factors] = {}
    for module in sorted({module for adapter in adapters for module in adapter}, key=model_order):
        present = [(adapter[module], weight) for adapter, weight in zip(adapters, w_K, strict=True) if module in adapter]
        merged[module] = chosen.merge(
            [one for one, _ in present], [weight for _, weight in present], rank, stream(seed, "merge", module)
        )
    provenance: dict[str, object] = {
        "method": method,
        "parameters": parameters,
        "weights": w_K,
        "rank": rank,
        "seed": seed,
        "sources": [adapter_name(adapter, place) for place, adapter in enumerate(adapters)],
        "fan_in_fan_out": any(adapter.provenance.get("fan_in_fan_out", False) for adapter in adapters),
        "warnings": warnings,
    }
    return Adapter(merged, next((one.base_model for one in adapters if one.base_model), None), provenance)


def _check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if len(weights) != count:
        raise InputError(f"{count} adapters need {count} weights", field="weights", value=list(weights))
    for weight in weights:
        if not math.isfinite(weight):
            raise InputError("must be finite numbers", field="weights", value=list(weights))
    return [float(weight) for weight in weights]
