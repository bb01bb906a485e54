"""Merge singular vectors that are made orthogonal across adapters (TSV-Merge), in factored space.

Axes: R rank, I input features, O output features, K singular triples of all adapters that are kept, N either of the sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.adapters.lowrank import Spectrum, factored_svd, stacked
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.order import content_order
from pomona.merging.subspace import FP32_ROUNDING, count_nonzero


@merge_methods.register("tsv")
@dataclass(frozen=True)
class Tsv(MergeMethod):
    """Sum the deltas after making their singular vectors orthogonal to each other, so that no adapter writes over another.

    `delta_k = U_k diag(S_k) V_k^T`; with `U = [U_1 ... U_n]`, `V = [V_1 ... V_n]` and `S = [w_1 S_1 ... w_n S_n]` (a negative
    weight leaves its sign in S) the result is `U_perp diag(S) V_perp^T`, where `X_perp = X (X^T X)^(-1/2)` is the nearest matrix
    with orthonormal columns, which is `P Q^T` for `X = P D Q^T` (Procrustes).

    Gargiulo et al. 2025, Task Singular Vectors, arXiv 2412.00081, TSV-Merge. Deviations: singular values that fp32 factors
    cannot tell from rounding are left out, as their vectors are arbitrary and would push the others aside; the paper keeps
    `floor(min(O, I) / n)` triples of every full-rank delta, here all of them are kept as long as there are no more than min(O, I).

    Adapters that repeat each other make columns of U dependent, and `P Q^T` is not unique. Here the null directions stay out
    (eigenvalues of `U^T U` below fp32's rounding of the largest: vectors whose cosine is 1 in fp32), so an adapter given twice
    is merged with the mean of its two weights, not their sum, and makes way for the others less. The paper's rule is
    discontinuous there: the slightest real difference between two vectors becomes a direction of its own, as strong as what they
    share.

    `rank` (or min(O, I)) bounds the number of triples: of n adapters each keeps its `floor(rank / n)` leading ones, and what is
    left of the bound goes to the largest |w_k| S_k that remain, whoever has them.
    """

    identity: ClassVar[Mapping[str, object] | None] = {}

    def merge(self, factors: Sequence[Factors], weights: Sequence[float], rank: int | None, generator: torch.Generator) -> Factors:
        """See `MergeMethod.merge`."""
        sides = factors[0].out_features, factors[0].in_features
        most = min(*sides) if rank is None else min(rank, *sides)
        order = content_order(factors, weights)  # equal singular values of several adapters compete for the last places
        U_OK, S_K, V_IK = _triples([factors[k] for k in order], [weights[k] for k in order], most)
        if len(S_K) == 0:
            return Factors(U_OK.new_zeros(1, sides[1], dtype=torch.float32), U_OK.new_zeros(sides[0], 1, dtype=torch.float32))
        return Factors(*factored_svd((orthogonalised(V_IK) * S_K).T, orthogonalised(U_OK), most).balanced())


def orthogonalised(X_NK: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """`X (X^T X)^(-1/2)`, the nearest matrix with orthonormal columns, K <= N.

    With dependent columns the inverse root is the pseudo-inverse's: the result is `P Q^T` over the non-zero part of
    `X = P D Q^T`, of X's rank. Permuting columns permutes the result's.

    Args:
        X_NK: fp64, columns of unit norm, K >= 1.
    """
    values_K, Q_KK = torch.linalg.eigh(X_NK.T @ X_NK)
    kept = values_K > FP32_ROUNDING * values_K[-1]
    return X_NK @ (Q_KK[:, kept] * values_K[kept].rsqrt()) @ Q_KK[:, kept].T


def _triples(factors: Sequence[Factors], weights: Sequence[float], most: int) -> Spectrum:
    """All adapters' singular triples side by side, weights in S, at most `most` of them."""
    spectra = [_nonzero(factored_svd(*stacked([one], [1.0]))) for one in factors]
    S = [weight * one.S_K for one, weight in zip(spectra, weights, strict=True)]
    chosen = _shares(S, most)
    U_OK, V_IK = torch.cat([one.U_OK for one in spectra], dim=1), torch.cat([one.V_IK for one in spectra], dim=1)
    return Spectrum(U_OK[:, chosen], torch.cat(S)[chosen], V_IK[:, chosen])


def _nonzero(spectrum: Spectrum) -> Spectrum:
    keep = count_nonzero(spectrum.S_K, FP32_ROUNDING)
    return Spectrum(spectrum.U_OK[:, :keep], spectrum.S_K[:keep], spectrum.V_IK[:, :keep])


def _shares(S: Sequence[Float[Tensor, " _"]], most: int) -> Int[Tensor, " K"]:
    """Which triples to keep: each adapter's share first, then the largest of the others."""
    share = most // len(S)
    ranking = [one.abs().index_fill(0, torch.arange(min(share, len(one)), device=one.device), math.inf) for one in S]
    return torch.cat(ranking).argsort(descending=True, stable=True)[:most]
