"""Make an adapter smaller without changing its deltas: drop rank-one components that are zero.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from pomona.adapters.factors import Adapter, Factors


def without_zero_components(adapter: Adapter) -> Adapter:
    """Drop every rank-one component whose row of A or column of B is all zero; `delta` does not change.

    So pruned components and modules need no memory. A written adapter has one rank, that of its largest module.

    Args:
        adapter: of finite values.

    Returns:
        The adapter, in memory, without empty modules; if all are empty, one zero component of the first module, because an
        adapter needs a module. A module that loses nothing keeps the same factors object.
    """
    left = {module: smaller for module in adapter if (smaller := _without_zeros(adapter[module])).rank}
    if not left:
        left = {module: _one_zero(adapter[module]) for module in adapter.modules[:1]}
    return Adapter(left, adapter.base_model, adapter.provenance, adapter.embeddings.intersection(left), adapter.whole)


def _without_zeros(factors: Factors) -> Factors:
    kept_R = (factors.A != 0).any(dim=1) & (factors.B != 0).any(dim=0)
    if bool(kept_R.all()):
        return factors
    return Factors(factors.A[kept_R], factors.B[:, kept_R].contiguous(), factors.scaling)


def _one_zero(factors: Factors) -> Factors:
    return Factors(factors.A.new_zeros(1, factors.in_features), factors.B.new_zeros(factors.out_features, 1), factors.scaling)
