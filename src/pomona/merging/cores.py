"""The deltas as small cores between two bases that all adapters share.

Axes: R rank, I input features, O output features, N either of the sides; P and Q the ranks of all B and of all A together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factored_svd import Spectrum, orthonormal
from pomona.adapters.factors import Factors
from pomona.adapters.truncated import Loss, Truncated
from pomona.merging.content_order import content_order
from pomona.merging.subspace import count_nonzero

# A singular value of the unit columns counts as 0 below this share, times the number of columns, of the largest.
_NULL = 4 * torch.finfo(torch.float64).eps


class Cores(NamedTuple):
    """The weighted deltas `w_k s_k B_k A_k = U M_k V^T`, exactly, in fp64. The bases are orthonormal: norms are those of the cores.

    Args:
        U_OP: basis of all B.
        parts: the cores M_k [P, Q], one for each adapter.
        V_IQ: basis of all A.
    """

    U_OP: Float[Tensor, "O P"]
    parts: list[Float[Tensor, "P Q"]]
    V_IQ: Float[Tensor, "I Q"]

    def lifted(self, core_PQ: Float[Tensor, "P Q"], rank: int | None) -> Spectrum:
        """The `rank` leading singular triples of `U M V^T`, with the dropped values; None: all of them."""
        U, S, V_T = torch.linalg.svd(core_PQ, full_matrices=False)
        kept = len(S[:rank])
        return Spectrum(self.U_OP @ U[:, :kept], S[:kept], self.V_IQ @ V_T[:kept].T, S[kept:])

    def lifted_instead(self, core_PQ: Float[Tensor, "P Q"], rank: int, full_PQ: Float[Tensor, "P Q"]) -> Truncated:
        """Factors of a core of at most this rank, with its difference from the method's full result as the loss."""
        loss = Loss(float((full_PQ - core_PQ).square().sum()), float(full_PQ.square().sum()))
        return Truncated(*self.lifted(core_PQ, rank).balanced(), loss=loss)


def taking_part(factors: Sequence[Factors], weights: Sequence[float]) -> tuple[list[Factors], list[float]]:
    """The adapters with an update, in an order that depends on their content alone; one of them if none has an update.

    A method that counts adapters must not count those with a factor of zeros: they are untrained.
    """
    order = content_order(factors, weights)
    trained = [k for k in order if bool(factors[k].A.any()) and bool(factors[k].B.any())] or order[:1]
    return [factors[k] for k in trained], [weights[k] for k in trained]


def joint_cores(factors: Sequence[Factors], weights: Sequence[float]) -> Cores:
    """The cores between the bases of all factors, as Core Space defines them (Panariello et al. 2025, arXiv 2509.17786).

    The bases are those of the factors without scalings and weights.
    """
    ranks = [one.rank for one in factors]
    U_OP, B_PR = joint_basis(torch.cat([one.B.double() for one in factors], dim=1))
    V_IQ, A_QR = joint_basis(torch.cat([one.A.double() for one in factors], dim=0).T)
    parts = zip(factors, weights, B_PR.split(ranks, dim=1), A_QR.split(ranks, dim=1), strict=True)
    return Cores(U_OP, [weight * one.scaling * (B @ A.T) for one, weight, B, A in parts], V_IQ)


def joint_basis(X_NR: Float[Tensor, "N R"]) -> tuple[Float[Tensor, "N K"], Float[Tensor, "K R"]]:
    """`X = U C`: the non-null left singular vectors of X, at least one, and the coordinates of X's columns.

    Their span is computed from columns of unit norm, so that the columns of a small adapter are not lost to the rounding of those
    of a large one. The rows of C are orthogonal, and their norms are the singular values of X.

    Args:
        X_NR: fp64.
    """
    norms_R = torch.linalg.vector_norm(X_NR, dim=0)
    Q_NM, T_MR = orthonormal(X_NR / norms_R.clamp(min=torch.finfo(X_NR.dtype).tiny))  # columns of zeros stay zero
    U, S, _ = torch.linalg.svd(T_MR, full_matrices=False)
    span_MK = U[:, : max(1, count_nonzero(S, _NULL * len(norms_R)))]
    within_KR = span_MK.T @ (T_MR * norms_R)
    P_KK = torch.linalg.svd(within_KR, full_matrices=False).U
    return Q_NM @ (span_MK @ P_KK), P_KK.T @ within_KR
