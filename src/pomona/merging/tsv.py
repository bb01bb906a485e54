"""Merge with singular vectors made orthogonal across adapters (TSV-Merge), in factored space.

Axes: R rank, I input features, O output features, K kept singular triples of all adapters, N either of the sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pomona.adapters.factored_svd import Spectrum, factored_svd, stacked
from pomona.adapters.factors import Factors
from pomona.adapters.truncated import Loss, Truncated
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.content_order import content_order
from pomona.merging.subspace import FP32_ROUNDING, count_nonzero


@merge_methods.register("tsv")
@dataclass(frozen=True)
class Tsv(MergeMethod):
    """Sum the deltas after making their singular vectors orthogonal to each other, to avoid interference between adapters.

    `delta_k = U_k diag(S_k) V_k^T`; with `U = [U_1 ... U_n]`, `V = [V_1 ... V_n]` and `S = [w_1 S_1 ... w_n S_n]` (the sign
    of a negative weight is in S) the result is `U_perp diag(S) V_perp^T`, where `X_perp = X (X^T X)^(-1/2)` is the nearest matrix
    with orthonormal columns, which is `P Q^T` for `X = P D Q^T` (Procrustes).

    Gargiulo et al. 2025, Task Singular Vectors, arXiv 2412.00081, TSV-Merge. Deviations: singular values within
    the rounding of fp32 factors are dropped, because their vectors are arbitrary and would displace the others; the paper keeps
    `floor(min(O, I) / n)` triples of every full-rank delta, Pomona keeps all triples, up to min(O, I).

    Equal adapters make columns of U dependent, and `P Q^T` is not unique. Here null directions are dropped (eigenvalues of `U^T U`
    below fp32's rounding relative to the largest: vectors whose cosine is 1 in fp32), so an adapter given twice is merged with the
    mean of its two weights, not their sum, and is displaced less by the others. The paper's rule is discontinuous there: a tiny
    real difference between two vectors becomes a separate direction, as strong as their common direction.

    `rank` (or min(O, I)) limits the number of triples: each of n adapters keeps its `floor(rank / n)` leading triples, and the rest
    of the limit goes to the largest remaining |w_k| S_k of all adapters.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        sides = factors[0].out_features, factors[0].in_features
        most = min(*sides) if rank is None else min(rank, *sides)
        order = content_order(factors, weights)  # ties between singular values of several adapters at the limit
        spectra = [_nonzero(factored_svd(*stacked([factors[k]], [1.0]))) for k in order]
        weighted = [weights[k] * one.S_K for k, one in zip(order, spectra, strict=True)]
        U_OK, V_IK = torch.cat([one.U_OK for one in spectra], dim=1), torch.cat([one.V_IK for one in spectra], dim=1)
        S_K, chosen = torch.cat(weighted), _shares(weighted, most)
        if len(chosen) == 0:
            return Factors(U_OK.new_zeros(1, sides[1], dtype=torch.float32), U_OK.new_zeros(sides[0], 1, dtype=torch.float32))
        kept = factored_svd((orthogonalised(V_IK[:, chosen]) * S_K[chosen]).T, orthogonalised(U_OK[:, chosen]), most)
        every = _shares(weighted, min(sides))
        if len(chosen) == len(every):
            return kept.factors()
        return Truncated(*kept.balanced(), loss=_loss(Spectrum(U_OK, S_K, V_IK), every, chosen))


def orthogonalised(X_NK: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """`X (X^T X)^(-1/2)`, the nearest matrix with orthonormal columns, K <= N.

    With dependent columns the inverse root is the pseudo-inverse's: the result is `P Q^T` over the non-zero part of
    `X = P D Q^T`, of X's rank. A permutation of the columns permutes the result's columns.

    Args:
        X_NK: fp64, columns of unit norm, K >= 1.
    """
    to_half_KM, Q_KM = _inverse_root(X_NK.T @ X_NK)
    return X_NK @ to_half_KM @ Q_KM.T


def _inverse_root(G_KK: Float[Tensor, "K K"]) -> tuple[Float[Tensor, "K M"], Float[Tensor, "K M"]]:
    """`(Q D^(-1/2), Q)` over the M directions of `G = Q D Q^T` that are not null."""
    values_K, Q_KK = torch.linalg.eigh(G_KK)
    kept = values_K > FP32_ROUNDING * values_K[-1]
    return Q_KK[:, kept] * values_K[kept].rsqrt(), Q_KK[:, kept]


def _loss(triples: Spectrum, every: Int[Tensor, " _"], chosen: Int[Tensor, " _"]) -> Loss:
    """The loss of the merge of the chosen triples against the merge of `every` possible triple.

    Both are `U M V^T` with a small M, so `||U M V^T||_F^2 = <U^T U M, M V^T V>` needs no O x I matrix.
    """
    U_gram, V_gram = triples.U_OK.T @ triples.U_OK, triples.V_IK.T @ triples.V_IK

    def merged(places: Int[Tensor, " _"]) -> Float[Tensor, "K K"]:
        (U_half, U_Q), (V_half, V_Q) = (_inverse_root(gram[places][:, places]) for gram in (U_gram, V_gram))
        M_KK = torch.zeros_like(U_gram)
        M_KK[places[:, None], places] = U_half @ U_Q.T * triples.S_K[places] @ V_Q @ V_half.T
        return M_KK

    def squared(M_KK: Float[Tensor, "K K"]) -> float:
        return max(0.0, float((U_gram @ M_KK).mul_(M_KK @ V_gram).sum()))

    full = merged(every)
    return Loss(squared(full - merged(chosen)), squared(full))


def _nonzero(spectrum: Spectrum) -> Spectrum:
    keep = count_nonzero(spectrum.S_K, FP32_ROUNDING)
    return Spectrum(spectrum.U_OK[:, :keep], spectrum.S_K[:keep], spectrum.V_IK[:, :keep])


def _shares(S: Sequence[Float[Tensor, " _"]], most: int) -> Int[Tensor, " K"]:
    """The triples to keep: first each adapter's share, then the largest of the others."""
    share = most // len(S)
    ranking = [one.abs().index_fill(0, torch.arange(min(share, len(one)), device=one.device), math.inf) for one in S]
    return torch.cat(ranking).argsort(descending=True, stable=True)[:most]
