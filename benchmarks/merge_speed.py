"""The time of merges, compared with PEFT's or the method's dense definition, alternately on the same 2048 x 2048 module."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peft_peer import MODULE, Peer, random_adapter
from pomona.adapters import Factors
from pomona.merging import CoreSpace, Knots, MergeMethod, Svd, merge_methods

SIZE, RANK, WEIGHTS = 2048, 16, (1.0, 1.0)
PAIRS = 3
SVD_BOUND, FACTORS_BOUND, SUBSPACE_BOUND = 1000.0, 1.0, 20.0


def run() -> bool:
    """Print the ratios; whether each is within its bound."""
    adapters = [random_adapter(seed, RANK, SIZE, SIZE) for seed in (0, 1)]
    factors = [adapter[MODULE] for adapter in adapters]
    peer = Peer(adapters)
    met = _faster("svd", _merged(Svd(), factors), _by_peft(peer, "svd"), SVD_BOUND, "PEFT's svd")
    for name in ("ties", "dare_linear", "dare_ties", "magnitude_prune"):
        method = merge_methods.create(name, {"on": "factors", "density": 0.5})
        against = _by_peft(peer, name, density=0.5)
        met &= _faster(f"{name} on factors", _merged(method, factors), against, FACTORS_BOUND, "PEFT's", pairs=25)
    met &= _faster("knots", _merged(Knots(), factors), lambda: dense_knots(factors, 0.2), SUBSPACE_BOUND, "its dense definition")
    core = CoreSpace(combine="ties")
    met &= _faster("core_space", _merged(core, factors), lambda: dense_core(factors, 0.2), SUBSPACE_BOUND, "its dense definition")
    return met


def _merged(method: MergeMethod, factors: list[Factors]) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    return lambda: method.merge(factors, WEIGHTS, None, generator)


def _by_peft(peer: Peer, combination: str, **options: object) -> Callable[[], object]:
    """Only the arithmetic of PEFT's merge: not the injection of the new adapter into the model."""
    tuner = peer.model.base_model
    density = options.get("density")
    if combination == "svd":
        like = torch.empty(RANK, SIZE), torch.empty(SIZE, RANK)
        return lambda: tuner._svd_generalized_task_arithmetic_weighted_adapter(
            "svd", peer.names, list(WEIGHTS), RANK, peer.layer, *like, density, "total", None
        )
    return lambda: tuner._generalized_task_arithmetic_weighted_adapter(
        combination, peer.names, list(WEIGHTS), peer.layer, density, "total"
    )


def dense_knots(factors: list[Factors], density: float) -> Tensor:
    """KnOTS with TIES, written down on whole matrices."""
    deltas = [one.delta() for one in factors]
    U, S, V_T = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
    return U @ (S[:, None] * ties(list(V_T.split(SIZE, dim=1)), density))


def dense_core(factors: list[Factors], density: float) -> Tensor:
    """Core space merging with TIES, its bases taken from whole matrices."""
    deltas = [one.delta() for one in factors]
    keep = sum(one.rank for one in factors)
    U = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)[0][:, :keep]
    V = torch.linalg.svd(torch.cat(deltas, dim=0), full_matrices=False)[2][:keep].T
    return U @ ties([U.T @ delta @ V for delta in deltas], density) @ V.T


def ties(parts: list[Tensor], density: float) -> Tensor:
    """TIES in a few lines: keep the largest, elect a sign, average those that agree."""
    stacked = torch.stack(parts)
    kept = int(density * stacked[0].numel())
    floor = stacked.abs().flatten(1).topk(kept).values[:, -1]
    trimmed = stacked * (stacked.abs() >= floor[:, None, None])
    agree = (trimmed * trimmed.sum(0)) > 0
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


def _faster(
    name: str, pomona: Callable[[], object], peer: Callable[[], object], bound: float, what: str, pairs: int = PAIRS
) -> bool:
    """Pairs in turn; `pomona` is repeated within a pair, as one call is too short to time."""
    pomona()
    ratios, own, other = [], [], []
    for _ in range(pairs):
        repeats = 20
        start = time.perf_counter()
        for _ in range(repeats):
            pomona()
        middle = time.perf_counter()
        peer()
        end = time.perf_counter()
        own.append((middle - start) / repeats)
        other.append(end - middle)
        ratios.append(other[-1] / own[-1])
    ratio = statistics.median(ratios)
    print(
        f"  {name}: {statistics.median(own) * 1e3:.2f} ms, {what} {statistics.median(other) * 1e3:.1f} ms: "
        f"{ratio:.1f} times as fast (bound {bound:g})",
        flush=True,
    )
    return ratio >= bound


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
