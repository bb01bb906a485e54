"""Similarity of two adapters: the cosine of their deltas, and the overlap of their input and output subspaces.

Axes: R, P ranks of the first and of the second factors, I input features, O output features, K dimensions of a subspace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from pomona.adapters.compatible import adapter_name
from pomona.adapters.factors import Adapter
from pomona.adapters.measure import Measured

# A direction counts if its eigenvalue, of the Gram matrix of unit vectors, is above this share of the largest.
_SMALLEST = 1e-12


class Likeness(NamedTuple):
    """Similarity of two updates of one module.

    Args:
        inner: `<D_1, D_2>_F = s_1 s_2 sum((B_1^T B_2) * (A_1 A_2^T))`.
        input_overlap: overlap of the row spaces of A_1 and A_2, in [0, 1]: the mean squared cosine of their principal angles,
            `||Q_1^T Q_2||_F^2 / min(K_1, K_2)` with orthonormal bases Q of K columns. 1: one space contains the other; 0: they are
            orthogonal; two random spaces have about `max(K_1, K_2) / I`. None if a space has dimension 0 (A is zero).
        output_overlap: the same for the column spaces of B_1 and B_2, with O.
    """

    inner: float
    input_overlap: float | None
    output_overlap: float | None


def compare(first: Measured, second: Measured) -> Likeness:
    """Compare two updates of one module and shape with R x R, P x P and R x P matrices."""
    cross_A_RP, cross_B_RP = first.A_RI @ second.A_RI.T, first.B_OR.T @ second.B_OR
    return Likeness(
        first.scaling * second.scaling * float((cross_A_RP * cross_B_RP).sum()),
        _overlap(first.gram_A_RR, second.gram_A_RR, cross_A_RP),
        _overlap(first.gram_B_RR, second.gram_B_RR, cross_B_RP),
    )


def compare_adapters(first: Adapter, second: Adapter) -> dict[str, object]:
    """Statistics of two adapters as JSON values; reads one module at a time.

    Returns:
        `modules`, in the first adapter's order, the modules that both adapt with equal shapes, each with `module, cosine,
        input_overlap` (of the row spaces of A) and `output_overlap` (of the column spaces of B); and `total` with `shared_modules`,
        `other_shape` (number of common modules with different shapes), `cosine` (of all deltas together; a missing module counts as
        zero), `shared_cosine` (over the modules that both adapt) and the means of `input_overlap` and `output_overlap`. None if a
        value is undefined: a zero delta, an empty space, no common module.
    """
    modules: list[dict[str, object]] = []
    inner, other_shape = 0.0, 0
    squares, shared_squares = [0.0, 0.0], [0.0, 0.0]
    inputs: list[float] = []
    outputs: list[float] = []
    for module in dict.fromkeys((*first, *second)):
        both = [Measured(adapter[module]) if module in adapter else None for adapter in (first, second)]
        norms = [one.delta_norm() if one else 0.0 for one in both]
        squares = _add_squares(squares, norms)
        one, two = both
        if one is None or two is None:
            continue
        if _shape(one) != _shape(two):
            other_shape += 1
            continue
        likeness = compare(one, two)
        cosine = _cosine(likeness.inner, *norms)
        overlaps = {"input_overlap": likeness.input_overlap, "output_overlap": likeness.output_overlap}
        modules.append({"module": module, "cosine": cosine, **overlaps})
        inner += likeness.inner
        shared_squares = _add_squares(shared_squares, norms)
        inputs += [likeness.input_overlap] if likeness.input_overlap is not None else []
        outputs += [likeness.output_overlap] if likeness.output_overlap is not None else []
    total = {
        "shared_modules": len(modules),
        "other_shape": other_shape,
        "cosine": _cosine(inner, *map(math.sqrt, squares)),
        "shared_cosine": _cosine(inner, *map(math.sqrt, shared_squares)),
        "input_overlap": _mean(inputs),
        "output_overlap": _mean(outputs),
    }
    return {"modules": modules, "total": total}


def compare_all(adapters: Sequence[Adapter]) -> list[dict[str, object]]:
    """`compare_adapters` for every pair, each with `first` and `second`: their names (`adapter_name`)."""
    named = [(adapter_name(adapter, place), adapter) for place, adapter in enumerate(adapters)]
    return [{"first": one, "second": two, **compare_adapters(a, b)} for (one, a), (two, b) in combinations(named, 2)]


def _overlap(gram_RR: Tensor, gram_PP: Tensor, cross_RP: Tensor) -> float | None:
    to_basis_RK, to_basis_PK = _to_basis(gram_RR), _to_basis(gram_PP)
    smaller = min(to_basis_RK.shape[1], to_basis_PK.shape[1])
    return min(float((to_basis_RK.T @ cross_RP @ to_basis_PK).square().sum()) / smaller, 1.0) if smaller else None


def _to_basis(gram_RR: Tensor) -> Tensor:
    """[R, K] whose transpose maps the vectors of this Gram matrix to an orthonormal basis of their span."""
    lengths_R = gram_RR.diagonal().sqrt()
    scale_R = torch.where(lengths_R > 0, 1 / lengths_R, 0.0)
    values_R, vectors_RR = torch.linalg.eigh(gram_RR * scale_R * scale_R[:, None])
    kept = values_R > _SMALLEST * values_R[-1:].clamp(min=_SMALLEST)
    return scale_R[:, None] * vectors_RR[:, kept] / values_R[kept].sqrt()


def _shape(measured: Measured) -> tuple[int, int]:
    return measured.B_OR.shape[0], measured.A_RI.shape[1]


def _add_squares(totals: list[float], values: list[float]) -> list[float]:
    return [total + value**2 for total, value in zip(totals, values, strict=True)]


def _cosine(inner: float, first_norm: float, second_norm: float) -> float | None:
    norms = first_norm * second_norm
    return max(-1.0, min(1.0, inner / norms)) if norms else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
