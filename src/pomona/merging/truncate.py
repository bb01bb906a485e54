"""The best low-rank approximation of a dense matrix.

Axes: K kept rank, I input features, O output features; N the shorter side, C the longer one, M columns of the basis.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factored_svd import Spectrum, factored_svd
from pomona.adapters.factors import row_blocks

_SMALL_ENTRIES = 2**18  # 512 x 512: here LAPACK's whole decomposition takes a fraction of a second
_EXTRA_COLUMNS = 8  # extra columns of a Krylov block: they speed up the convergence of the K-th value if its neighbours are close
_LEAST_GROWTH = 1e-4  # growth of the captured energy in one step, as a share of the remaining energy
_ROUNDING = 1e-13  # share of the total energy below which growth is fp64 rounding


def truncate(matrix_OI: Float[Tensor, "O I"], rank: int) -> Spectrum:
    """The `rank` leading singular triples of a dense matrix (Eckart-Young), without a second full copy of a large matrix.

    Up to 512 x 512 entries by LAPACK in fp64. Above, by block Krylov iteration with full reorthogonalisation (Musco and Musco,
    arXiv 1504.05477, Algorithm 2): the basis `Q = orth([M G, (M M^T) M G, (M M^T)^2 M G, ...])` starts from a fixed random G
    of K + 8 columns and grows by one block per step; the triples are those of `Q Q^T M`. Products are computed in fp64 from
    row blocks of M, so small singular values are kept. The error of the result, `||M - M_K||_F`, exceeds the optimal error by less
    than 1e-4 of it. Because the triples are those of a projection of M, `||M - M_K||_F^2 = ||M||_F^2 - sum_K S^2` holds for the
    result, not only for the optimal approximation.

    Deviation from the paper: the number of steps is not fixed; the iteration ends when a step increases the captured energy
    `sum_K S^2` by less than 1e-4 of the remaining energy.

    Args:
        matrix_OI: fp32.
        rank: K >= 1; a rank above min(O, I) has no further effect.
    """
    O, I = matrix_OI.shape  # noqa: E741
    if O * I <= _SMALL_ENTRIES:
        U, S, V_T = torch.linalg.svd(matrix_OI.double(), full_matrices=False)
        return Spectrum(U[:, :rank], S[:rank], V_T[:rank].T, S[rank:])

    def times(X: Float[Tensor, "I M"]) -> Float[Tensor, "O M"]:
        product = X.new_empty(O, X.shape[1])  # no list of the blocks' products, which would fragment the heap
        for rows in row_blocks(O, I):
            product[rows] = matrix_OI[rows].double() @ X
        return product

    def transposed_times(Y: Float[Tensor, "O M"]) -> Float[Tensor, "I M"]:
        product = Y.new_zeros(I, Y.shape[1])
        for rows in row_blocks(O, I):
            product.addmm_(matrix_OI[rows].double().T, Y[rows])
        return product

    energy = sum(float(matrix_OI[rows].double().square().sum()) for rows in row_blocks(O, I))
    start = torch.Generator().manual_seed(0)
    if O <= I:
        G = torch.randn(I, min(rank + _EXTRA_COLUMNS, O), generator=start, dtype=torch.float64)
        Q, T = _krylov(times, transposed_times, G.to(matrix_OI.device), rank, O, energy)
        return factored_svd(T, Q, rank)._replace(rest=None, whole_squared=energy)
    G = torch.randn(O, min(rank + _EXTRA_COLUMNS, I), generator=start, dtype=torch.float64)
    Q, T = _krylov(transposed_times, times, G.to(matrix_OI.device), rank, I, energy)
    return factored_svd(Q.T, T.T, rank)._replace(rest=None, whole_squared=energy)


def _krylov(
    times: Callable[[Tensor], Tensor],
    transposed_times: Callable[[Tensor], Tensor],
    start_CM: Float[Tensor, "C M"],
    rank: int,
    shorter: int,
    energy: float,
) -> tuple[Float[Tensor, "N M2"], Float[Tensor, "M2 C"]]:
    """An orthonormal basis Q whose projection `Q Q^T M` contains the leading triples of M, and `T = Q^T M`."""
    Q = start_CM.new_zeros(shorter, 0)
    T = start_CM.new_zeros(0, start_CM.shape[0])
    X, captured = start_CM, 0.0
    while True:
        Y = times(X)[:, : shorter - Q.shape[1]]
        for _ in range(2):  # a single pass leaves the errors of cancellation: all of Y if Q already spans the range of M
            Y = torch.linalg.qr(Y - Q @ (Q.T @ Y)).Q
        X = transposed_times(Y)
        Q, T = torch.cat([Q, Y], dim=1), torch.cat([T, X.T])
        before, captured = captured, float(torch.linalg.eigvalsh(T @ T.T)[-rank:].sum())
        if Q.shape[1] == shorter or captured - before <= _LEAST_GROWTH * (energy - captured) + _ROUNDING * energy:
            return Q, T
