"""Statistics of one adapter, module by module, without a dense delta.

Axes: R rank, I input features, O output features, K singular values.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.full_tensors import info_of


class Measured:
    """One module's factors in fp64 with the two R x R matrices from which all statistics of its delta are computed.

    Args:
        factors: on any device, of any floating dtype; not kept.
    """

    def __init__(self, factors: Factors) -> None:
        self.A_RI: Float[Tensor, "R I"] = factors.A.double()
        self.B_OR: Float[Tensor, "O R"] = factors.B.double()
        self.scaling = factors.scaling
        self.gram_A_RR: Float[Tensor, "R R"] = self.A_RI @ self.A_RI.T
        self.gram_B_RR: Float[Tensor, "R R"] = self.B_OR.T @ self.B_OR

    def delta_norm(self) -> float:
        """Frobenius norm of the delta: `|s| sqrt(sum((B^T B) * (A A^T)))`."""
        return abs(self.scaling) * math.sqrt(max(float((self.gram_A_RR * self.gram_B_RR).sum()), 0.0))

    def singular_values(self) -> Float[Tensor, " R"]:
        """All R singular values of the delta, smallest first.

        With `A A^T = T^T T`, their squares are the eigenvalues of `s^2 T (B^T B) T^T`. Values below about 1e-7 of the largest are
        rounding errors; `factored_svd` computes them exactly, at several times the cost.
        """
        # Each row of A and its column of B are first scaled to equal norms: then small entries of a Gram matrix are small in the
        # delta.
        length_A_R, length_B_R = self.gram_A_RR.diagonal().sqrt(), self.gram_B_RR.diagonal().sqrt()
        even_R = torch.where(length_A_R > 0, (length_B_R / length_A_R).sqrt(), 1.0)
        even_R = torch.where(length_B_R > 0, even_R, 1.0)
        values_R, vectors_RR = torch.linalg.eigh(self.gram_A_RR * even_R * even_R[:, None])
        T_RR = (vectors_RR * values_R.clamp(min=0.0).sqrt()).T
        squares_R = torch.linalg.eigvalsh(T_RR @ (self.gram_B_RR / even_R / even_R[:, None]) @ T_RR.T)
        return abs(self.scaling) * squares_R.clamp(min=0.0).sqrt()


def delta_norm(factors: Factors) -> float:
    """`Measured.delta_norm` for factors without other statistics."""
    return Measured(factors).delta_norm()


def effective_rank(S_K: Float[Tensor, " K"]) -> float:
    """`exp(H)` of the entropy H of the normalised singular values `p_k = S_k / sum(S)`, after Roy & Vetterli (2007).

    From 1 (all of the delta in one direction) to K (all singular values equal); 0 for a zero delta.

    Args:
        S_K: singular values, >= 0, in any order.
    """
    p_K = S_K[S_K > 0] / S_K.sum()
    return math.exp(-float((p_K * p_K.log()).sum())) if len(p_K) else 0.0


class Entries(NamedTuple):
    """The numbers of entries of an adapter's factors, stored in a folder with one rank.

    Args:
        stored: all entries, including padding.
        padding: entries of components that are all zero, in the row of A and in the column of B: they pad a module to the common
            rank, or belong to a component that was pruned. Removing them would change no delta.
        zeros: exact zeros among the other entries.
    """

    stored: int
    padding: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """Share of zeros among the entries without padding, in [0, 1]; 0 if there are no entries."""
        used = self.stored - self.padding
        return self.zeros / used if used else 0.0


class _Counts:
    """For one module: the number of components that are all zero in the row of A and in the column of B, and other zeros."""

    def __init__(self, factors: Factors) -> None:
        A_R, B_R = factors.A.count_nonzero(dim=1), factors.B.count_nonzero(dim=0)
        self.padding = int(((A_R == 0) & (B_R == 0)).sum())
        used = factors.rank - self.padding
        self.entries_A, self.entries_B = used * factors.in_features, used * factors.out_features
        self.zeros_A, self.zeros_B = self.entries_A - int(A_R.sum()), self.entries_B - int(B_R.sum())


def count_entries(adapter: Adapter) -> Entries:
    """The entries of all modules, each padded to the largest rank among them; reads one module at a time."""
    rank = max((adapter[module].rank for module in adapter), default=0)
    stored = padding = zeros = 0
    for module in adapter:
        factors = adapter[module]
        counts, each = _Counts(factors), factors.in_features + factors.out_features
        stored += rank * each
        padding += (rank - factors.rank + counts.padding) * each
        zeros += counts.zeros_A + counts.zeros_B
    return Entries(stored, padding, zeros)


def describe_adapter(adapter: Adapter) -> dict[str, object]:
    """An adapter's statistics as JSON values; reads one module at a time.

    Returns:
        `base_model`; `modules`, in order, each with `module, kind` (`linear` or `embedding`), `out_features, in_features, rank,
        padding` (how many components of the rank are all zero), `scaling, delta_norm, effective_rank, sparsity_A, sparsity_B`
        (without the padding), `dtype`; and `total` with `modules, parameters` (all that are stored), `padding` (how many of them),
        `sparsity` (share of zeros among the others), `ranks` (each rank once, smallest first), `dtypes, delta_norm` (of all deltas
        together) and `mean_effective_rank` (of the modules with a non-zero delta; None if there are none); `whole`, a list of
        `parameter, shape` of the whole tensors.
    """
    modules: list[dict[str, object]] = []
    parameters, padding, zeros, squared = 0, 0, 0, 0.0
    ranks: set[int] = set()
    dtypes: dict[str, None] = {}
    effective: list[float] = []
    for module in adapter:
        factors = adapter[module]
        measured = Measured(factors)
        norm, spread = measured.delta_norm(), effective_rank(measured.singular_values())
        counts = _Counts(factors)
        names = dict.fromkeys(str(one.dtype).removeprefix("torch.") for one in (factors.A, factors.B))
        modules.append(
            {
                "module": module,
                "kind": "embedding" if module in adapter.embeddings else "linear",
                "out_features": factors.out_features,
                "in_features": factors.in_features,
                "rank": factors.rank,
                "padding": counts.padding,
                "scaling": factors.scaling,
                "delta_norm": norm,
                "effective_rank": spread,
                "sparsity_A": counts.zeros_A / counts.entries_A if counts.entries_A else 0.0,
                "sparsity_B": counts.zeros_B / counts.entries_B if counts.entries_B else 0.0,
                "dtype": "/".join(names),
            }
        )
        parameters += factors.A.numel() + factors.B.numel()
        padding += counts.padding * (factors.in_features + factors.out_features)
        zeros += counts.zeros_A + counts.zeros_B
        squared += norm * norm
        ranks.add(factors.rank)
        dtypes |= names
        effective += [spread] if norm else []
    total = {
        "modules": len(modules),
        "parameters": parameters,
        "padding": padding,
        "ranks": sorted(ranks),
        "dtypes": list(dtypes),
        "delta_norm": math.sqrt(squared),
        "mean_effective_rank": sum(effective) / len(effective) if effective else None,
        "sparsity": Entries(parameters, padding, zeros).sparsity,
    }
    whole = [{"parameter": name, "shape": [*info_of(adapter, name).shape]} for name in adapter.whole]
    return {"base_model": adapter.base_model, "modules": modules, "whole": whole, "total": total}
