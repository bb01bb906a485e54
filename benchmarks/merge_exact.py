"""The exactness of merges, compared with the definition in fp64, and with PEFT's results, correct and incorrect ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.peft_peer import MODULE, Peer, random_adapter
from pomona.adapters import Adapter, Factors
from pomona.merging import merge
from pomona.seeding import stream

OUT, IN, RANK = 768, 512, 16
CONCAT_BOUND, SVD_BOUND, PEFT_BOUND = 1e-6, 1e-4, 1e-5
# Below this share of the whole update an error is fp32 rounding of the factors, and no longer the truncation's.
_ROUNDING = 1e-6

# (what, Pomona's method and its parameters, PEFT's combination and its options, weights)
PARITY: tuple[tuple[str, dict[str, Any], str, dict[str, Any], tuple[float, float]], ...] = (
    ("concat", {}, "cat", {}, (0.7, -0.4)),
    ("linear", {}, "linear", {}, (0.7, -0.4)),
    ("svd", {}, "svd", {}, (0.7, -0.4)),
    ("ties", {"on": "factors", "density": 0.4}, "ties", {"density": 0.4}, (0.7, -0.4)),
    ("magnitude_prune", {"on": "factors", "density": 0.4}, "magnitude_prune", {"density": 0.4}, (0.7, -0.4)),
    ("ties", {"density": 0.4}, "ties_svd", {"density": 0.4}, (1.0, 1.0)),
    ("magnitude_prune", {"density": 0.4}, "magnitude_prune_svd", {"density": 0.4}, (0.7, -0.4)),
)


def run() -> bool:
    """Print the errors; whether each is within its bound."""
    met = True
    for title, adapters in kinds().items():
        met &= _definition(title, adapters)
    met &= _parity()
    _where_peft_is_wrong()
    return met


def kinds() -> dict[str, list[Adapter]]:
    """Pairs of adapters that are hard in different ways."""
    generator = stream(0, "merge_exact")

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def pair() -> list[Adapter]:
        return [_adapter(draw(RANK, IN), draw(OUT, RANK)) for _ in range(2)]

    one = pair()[0]
    deficient = _adapter(draw(RANK, 3) @ draw(3, IN), draw(OUT, RANK))
    Q_B, Q_A = torch.linalg.qr(draw(OUT, 2 * RANK))[0], torch.linalg.qr(draw(IN, 2 * RANK))[0]
    repeated = [_adapter(Q_A.T[part].contiguous(), Q_B[:, part].contiguous()) for part in (slice(RANK), slice(RANK, None))]
    scales = torch.logspace(-6, 6, RANK)
    rows = [_adapter(draw(RANK, IN) * scales[:, None], draw(OUT, RANK)) for _ in range(2)]
    opposed = [_adapter(draw(RANK, IN) * scales[:, None], draw(OUT, RANK) / scales) for _ in range(2)]
    far = [_adapter(draw(RANK, IN) * scale, draw(OUT, RANK) * scale) for scale in (1e-6, 1e6)]
    return {
        "random": pair(),
        "rank-deficient": [deficient, _adapter(deficient[MODULE].A * 2, draw(OUT, RANK))],
        "the same adapter twice": [one, one],
        "repeated singular values": repeated,
        "rows of A from 1e-6 to 1e6": rows,
        "rows of A from 1e-6 to 1e6, columns of B the other way": opposed,
        "one adapter 1e-12, the other 1e12": far,
    }


def _adapter(A: Tensor, B: Tensor) -> Adapter:
    return Adapter({MODULE: Factors(A, B, 2.0)})


def _delta(adapter: Adapter) -> Tensor:
    return adapter[MODULE].delta(torch.float64)


def _definition(title: str, adapters: Sequence[Adapter]) -> bool:
    weights = (0.7, -0.3)
    exact = torch.stack([weight * _delta(adapter) for weight, adapter in zip(weights, adapters, strict=True)]).sum(0)
    norm = float(exact.norm())
    concat = float((_delta(merge(adapters, "concat", weights)) - exact).norm()) / norm
    optimal = float(torch.linalg.svdvals(exact)[RANK:].norm())
    found = float((_delta(merge(adapters, "svd", weights)) - exact).norm())
    exceeds = (found - optimal) / max(optimal, _ROUNDING * norm / SVD_BOUND)
    print(
        f"  {title}: concat's error {concat:.1e} of delta* (bound {CONCAT_BOUND:.0e}); svd at rank {RANK}: {found / norm:.3e}, the "
        f"optimum {optimal / norm:.3e}, above it by {exceeds:.1e} (bound {SVD_BOUND:.0e})",
        flush=True,
    )
    return concat <= CONCAT_BOUND and exceeds <= SVD_BOUND


def _parity() -> bool:
    adapters = [random_adapter(seed, RANK, OUT, IN, scaling=1.0 + seed) for seed in (0, 1)]
    equal = [random_adapter(seed, RANK, OUT, IN) for seed in (0, 1)]
    met = True
    for method, parameters, combination, options, weights in PARITY:
        chosen = equal if combination.endswith("_svd") else adapters
        full = min(OUT, IN) if combination.endswith("_svd") else None
        merged = merge(chosen, method, weights, full, **parameters)
        peer = Peer(chosen).merge(combination, weights, **options, **({"svd_rank": full} if full else {}))
        difference = _relative(_delta(merged), peer)
        named = ", ".join([method, *(f"{name} {value}" for name, value in parameters.items())])
        print(f"  {named} against PEFT's {combination}: differs by {difference:.1e} of the delta (bound {PEFT_BOUND:.0e})")
        met &= difference <= PEFT_BOUND
    return met


def _where_peft_is_wrong() -> None:
    adapters = [random_adapter(seed, RANK, OUT, IN) for seed in (0, 1)]
    exact = sum(_delta(adapter) for adapter in adapters)
    assert isinstance(exact, Tensor)
    for combination in ("cat", "svd"):
        options = {"svd_rank": 2 * RANK} if combination == "svd" else {}
        wrong = _relative(Peer(adapters, rslora=True).merge(combination, (1.0, 1.0), **options), exact)
        own = _relative(_delta(merge(adapters, "concat")), exact)
        print(f"  rsLoRA sources, PEFT's {combination}: off by {wrong:.2f} of the true sum; Pomona's concat {own:.0e}")
    alone = merge(adapters[:1], "ties", on="factors", density=0.4)
    pomona = merge(adapters, "ties", (1.0, 0.0), on="factors", density=0.4)
    peer = Peer(adapters).merge("ties", (1.0, 0.0), density=0.4)
    print(
        "  ties with weights (1, 0), against ties of the first adapter alone: "
        f"PEFT differs by {_relative(peer, _delta(alone)):.2f}, Pomona by {_relative(_delta(pomona), _delta(alone)):.0e}"
    )
    for combination in ("svd", "cat", "linear"):
        # The rank of the pattern is the true one; PEFT makes the merge's rank from the configs' `r`.
        print(f"  rank_pattern 16 over r 4, PEFT's {combination}: {_with_pattern(combination, adapters, exact)}")
    unequal = [random_adapter(0, RANK, OUT, IN), random_adapter(1, RANK // 2, OUT, IN)]
    print(f"  ranks 16 and 8, PEFT's ties: {_outcome(Peer(unequal), 'ties', exact, density=0.4)}; Pomona's works on the deltas")


def _with_pattern(combination: str, adapters: Sequence[Adapter], exact: Tensor) -> str:
    return _outcome(Peer(adapters, config_rank=4), combination, exact)


def _outcome(peer: Peer, combination: str, exact: Tensor, **options: object) -> str:
    try:
        return f"off by {_relative(peer.merge(combination, (1.0, 1.0), **options), exact):.2f} of the true sum"
    except Exception as error:
        return f"fails ({type(error).__name__}: {str(error).splitlines()[0][:90]})"


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
