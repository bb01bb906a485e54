"""Figures of one module's factors, without its dense delta.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Adapter, Factors


def delta_norm(factors: Factors) -> float:
    """Frobenius norm of the delta: `|s| sqrt(sum((B^T B) * (A A^T)))`, in fp64, from two R x R matrices."""
    A_RI, B_OR = factors.A.double(), factors.B.double()
    squared = float(((B_OR.T @ B_OR) * (A_RI @ A_RI.T)).sum())
    return abs(factors.scaling) * math.sqrt(max(squared, 0.0))


def sparsity(matrix: Float[Tensor, "N M"]) -> float:
    """Share of exact zeros, in [0, 1]; 0 for a matrix without entries."""
    return 1.0 - int(matrix.count_nonzero()) / matrix.numel() if matrix.numel() else 0.0


def describe_adapter(adapter: Adapter) -> dict[str, object]:
    """An adapter's figures as JSON can hold them; reads one module at a time.

    Returns:
        `base_model`; `modules`, in order, each with `module, out_features, in_features, rank, scaling, delta_norm, sparsity_A,
        sparsity_B, dtype`; and `total` with `modules, parameters, delta_norm` (of all deltas together) and `sparsity`.
    """
    modules: list[dict[str, object]] = []
    parameters, zeros, squared = 0, 0, 0.0
    for module in adapter:
        factors = adapter[module]
        norm = delta_norm(factors)
        modules.append(
            {
                "module": module,
                "out_features": factors.out_features,
                "in_features": factors.in_features,
                "rank": factors.rank,
                "scaling": factors.scaling,
                "delta_norm": norm,
                "sparsity_A": sparsity(factors.A),
                "sparsity_B": sparsity(factors.B),
                "dtype": "/".join(dict.fromkeys(str(one.dtype).removeprefix("torch.") for one in (factors.A, factors.B))),
            }
        )
        parameters += factors.A.numel() + factors.B.numel()
        zeros += sum(one.numel() - int(one.count_nonzero()) for one in (factors.A, factors.B))
        squared += norm * norm
    total = {
        "modules": len(modules),
        "parameters": parameters,
        "delta_norm": math.sqrt(squared),
        "sparsity": zeros / parameters if parameters else 0.0,
    }
    return {"base_model": adapter.base_model, "modules": modules, "total": total}
