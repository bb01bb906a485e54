"""The best low-rank factors of a dense weight difference, with a measured error.

Axes: O output features, I input features, N the smaller of both, M the larger, K kept rank, L columns of a sketch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.convert.result import Approximation
from pomona.adapters.export.checkpoint import BLOCK_ENTRIES
from pomona.adapters.factors import Factors
from pomona.adapters.tensors import all_finite
from pomona.errors import InputError

LARGE_ERROR = 0.1
"""A larger relative loss causes a warning."""

_EXACT_SIZE = 512
"""Largest smaller side of a matrix that is decomposed exactly, which takes well under a second."""
_SKETCH = 64
_PASSES = 30
_SETTLED = 1e-4
_NOTHING = 1e-7
"""A singular value below this share of the largest is the rounding of an fp32 difference."""


class Limits(NamedTuple):
    """The limits of a truncation: at least one of the two is given.

    Args:
        rank: K >= 1, the largest rank.
        max_error: the share of a module's update that may be lost, in (0, 1); the smallest rank within this error is used.
    """

    rank: int | None
    max_error: float | None


def check_limits(limits: Limits) -> None:
    """Check that a limit is given and that each limit is in its range.

    Raises:
        InputError: no limit is given, or one is out of range; the error names the option.
    """
    if limits.rank is None and limits.max_error is None:
        fix = "Give --rank, or --max-error for the smallest rank within this error"
        raise InputError("is needed: the adapter can only be approximated by plain factors", field="--rank", fix=fix)
    if limits.rank is not None and limits.rank < 1:
        raise InputError("the rank must be at least 1", field="--rank", value=limits.rank)
    if limits.max_error is not None and not 0 < limits.max_error < 1:
        raise InputError("must be above 0 and below 1", field="--max-error", value=limits.max_error)


def factor_all(
    deltas: Iterable[tuple[str, Float[Tensor, "O I"]]], limits: Limits, dtype: torch.dtype
) -> tuple[dict[str, Factors], Approximation]:
    """Factor the difference of each module, one dense matrix at a time; modules with a difference of zero are left out.

    Args:
        deltas: pairs of a module and its weight difference in fp32.
        limits: the largest rank and the largest error.
        dtype: dtype of the factors, whose rounding is part of the error.

    Returns:
        The factors, and their loss.

    Raises:
        InputError: every difference is zero, or one is not finite.
    """
    found: dict[str, Factors] = {}
    shares: dict[str, float] = {}
    lost = whole = 0.0
    for module, delta_OI in deltas:
        if not all_finite(delta_OI):
            problem = "the difference of weights has NaN or infinite values, nothing was written"
            raise InputError(problem, field=module, fix="Check both inputs, or use an earlier checkpoint")
        size = _square(delta_OI)
        if size == 0:
            continue
        A_KI, B_OK = factor(delta_OI, limits)
        factors = Factors(A_KI.to(dtype), B_OK.to(dtype))
        missing = _missing(delta_OI, factors)
        found[module], shares[module] = factors, math.sqrt(missing / size)
        lost, whole = lost + missing, whole + size
    if not found:
        raise InputError("changes nothing: every difference of weights is zero", fix="Check that both inputs are the right ones")
    worst = max(shares, key=lambda module: shares[module])
    return found, Approximation(math.sqrt(lost / whole), worst, shares[worst])


def factor(
    delta_OI: Float[Tensor, "O I"], limits: Limits, exact_size: int = _EXACT_SIZE
) -> tuple[Float[Tensor, "K I"], Float[Tensor, "O K"]]:
    """`(A, B)`, balanced and in fp32, with `B A` the best approximation of a matrix that is not zero.

    With orthonormal leading vectors Q of the smaller side, `B A = Q Q^T delta`. For small matrices, Q are eigenvectors of the Gram
    matrix in fp64. For others, Q comes from block power iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) with more
    columns than are kept. It stops when the captured energy grows by less than 1e-4 of the lost energy. Its start is drawn from a
    fixed seed.

    Args:
        delta_OI: fp32.
        limits: the largest rank and the largest error.
        exact_size: the largest smaller side for the exact decomposition.
    """
    upright = delta_OI.shape[0] <= delta_OI.shape[1]
    D_NM = delta_OI if upright else delta_OI.T
    Q_NL, energies_L = _leading(D_NM, limits, exact_size)
    K = _rank(energies_L, _square(D_NM), limits)
    S_K = energies_L[:K].sqrt()
    left_NK = (Q_NL[:, :K] * S_K.sqrt()).float()
    right_KM = ((Q_NL[:, :K] / S_K.sqrt()).float().T @ D_NM).contiguous()
    return (right_KM, left_NK.contiguous()) if upright else (left_NK.T.contiguous(), right_KM.T.contiguous())


def _leading(D_NM: Tensor, limits: Limits, exact_size: int) -> tuple[Tensor, Tensor]:
    """Orthonormal vectors [N, L] in fp64, and the energy `||q^T D||^2` [L] of each, largest first."""
    N = D_NM.shape[0]
    columns = limits.rank or _SKETCH
    while exact_size < N and 4 * columns < N:
        Q_NL, energies_L = _sketched(D_NM, columns)
        left = _square(D_NM) * (limits.max_error or 1) ** 2
        if limits.max_error is None or limits.rank is not None or _square(D_NM) - float(energies_L.sum()) <= left:
            return Q_NL, energies_L
        columns *= 2
    return _rotated(D_NM, torch.eye(N, dtype=torch.float64))


def _sketched(D_NM: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """The leading `columns` of N vectors, and a few more, which make the iteration converge faster."""
    N = D_NM.shape[0]
    wide = min(N, columns + max(16, columns // 2))
    start = torch.randn(D_NM.shape[1], wide, generator=torch.Generator().manual_seed(0))
    Q_NL = torch.linalg.qr((D_NM @ start).double())[0]
    whole, captured = _square(D_NM), 0.0
    for _ in range(_PASSES):
        Q_NL, energies_L = _rotated(D_NM, Q_NL)
        now = float(energies_L[:columns].sum())
        if now - captured <= _SETTLED * (whole - now):
            return Q_NL, energies_L
        captured = now
        Q_NL = torch.linalg.qr((D_NM @ (D_NM.T @ Q_NL.float())).double())[0]
    return _rotated(D_NM, Q_NL)


def _rotated(D_NM: Tensor, Q_NL: Tensor) -> tuple[Tensor, Tensor]:
    """The singular vectors within the span of Q: eigenvectors of `(Q^T D) (Q^T D)^T` in fp64, summed over blocks of columns."""
    L = Q_NL.shape[1]
    whole = Q_NL.shape[0] == L
    G_LL = torch.zeros(L, L, dtype=torch.float64)
    for block in D_NM.split(max(1, BLOCK_ENTRIES // D_NM.shape[0]), dim=1):
        P_L = block.double() if whole else Q_NL.T @ block.double()
        G_LL.addmm_(P_L, P_L.T)
    values, vectors = torch.linalg.eigh(G_LL)
    turned = vectors.flip(1)
    return (turned if whole else Q_NL @ turned), values.flip(0).clamp(min=0)


def _rank(energies_L: Tensor, whole: float, limits: Limits) -> int:
    """The smallest rank within the error, at most the largest rank, without singular values that are rounding errors."""
    K = int((energies_L > energies_L[0] * _NOTHING**2).sum())
    if limits.max_error is not None:
        lost = whole - energies_L.cumsum(0)
        enough = (lost <= limits.max_error**2 * whole).nonzero()
        K = min(K, int(enough[0]) + 1) if len(enough) else K
    return min(K, limits.rank or K)


def _square(D: Tensor) -> float:
    return float(sum(part.double().square().sum() for part in _rows(D)))


def _missing(delta_OI: Tensor, factors: Factors) -> float:
    A_KI, B_OK = factors.A.double(), factors.B.double()
    blocks = zip(_rows(delta_OI), _rows(B_OK, delta_OI.shape[1]), strict=True)
    return float(sum((delta.double() - B @ A_KI).square().sum() for delta, B in blocks))


def _rows(D: Tensor, columns: int | None = None) -> tuple[Tensor, ...]:
    return D.split(max(1, BLOCK_ENTRIES // (columns or D.shape[1])))
