"""An adapter made smaller without changing it: rank-one components that are zero anyway are dropped.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from pomona.adapters.factors import Adapter, Factors


def without_zero_components(adapter: Adapter) -> Adapter:
    """Drop every rank-one component whose row of A or column of B is all zero: `delta` stays what it is.

    What pruning of whole components and modules leaves behind thereby costs nothing. A written adapter has one rank, that of
    its largest module.

    Args:
        adapter: of finite values.

    Returns:
        The adapter, in memory, without the modules of which nothing is left; where nothing is left at all, one zero component of
        the first module, since an adapter needs a module. A module that loses nothing keeps its very factors.
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
