"""Pomona's frozen float32 products on a CPU, compared with torch's own `F.linear`, at the shapes of SmolLM2-135M.

Forward (`x W'`) and backward (`dy W`), from the rows of a decoding batch to those of a batch of probes; pairs are interleaved, and
the median of the pairs' ratios is reported. On processors without a gain Pomona uses torch's products, and there is nothing to
measure.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pomona.backbone.speed.frozen_products import onednn_is_faster, product
from pomona.seeding import stream

SHAPES = {"gate": (1536, 576), "down": (576, 1536), "query": (576, 576), "value": (192, 576), "head": (49152, 576)}
ROWS = (1, 8, 72, 576, 2048)
HEAD_ROWS = 128
"""As many as the loss gives the head at a time."""
PAIRS = 11
CLOSE = 1e-5
"""Of the largest entry: both sum in float32, in orders of their own."""


@torch.no_grad()
def run() -> bool:
    """Print both speeds, their ratio and the largest gap; whether from 72 rows on no shape is slower, and all results agree."""
    if not onednn_is_faster():
        print("on this processor torch's own products are used")
        return True
    print(f"GFLOP/s of oneDNN and of torch's own products, {torch.get_num_threads()} threads")
    fast, close = True, True
    for name, (out_features, in_features) in SHAPES.items():
        weight = torch.randn(out_features, in_features, generator=stream(0, "weight", name))
        for rows in ROWS if name != "head" else (1, 8, HEAD_ROWS):
            x, dy = (torch.randn(rows, width, generator=stream(0, "rows", rows, width)) for width in (in_features, out_features))
            forward = _compare(name, "forward", lambda x=x, w=weight: product(x, w), lambda x=x, w=weight: F.linear(x, w), rows)
            backward = _compare(name, "backward", lambda y=dy, w=weight: product(y, w.T), lambda y=dy, w=weight: y @ w, rows)
            fast &= rows < 72 or min(forward[0], backward[0]) >= 1
            close &= max(forward[1], backward[1]) <= CLOSE
    print(f"no shape slower from 72 rows on: {fast}; largest gap within {CLOSE:g} of the largest entry: {close}")
    return fast and close


def _compare(name: str, way: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], rows: int) -> tuple[float, float]:
    """The median ratio of speeds, and the largest gap as a share of the largest entry; printed."""
    expected = theirs()
    gap = float((ours() - expected).abs().max() / expected.abs().max())
    out_features, in_features = SHAPES[name]
    giga = 2 * rows * out_features * in_features / 1e9
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(PAIRS)]
    ratio = statistics.median(their / our for our, their in pairs)
    our, their = (giga / statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"  {name:<6} {rows:>5} rows, {way:<8}: {our:4.0f} and {their:4.0f}, {ratio:.2f} times; gap {gap:.0e}", flush=True)
    return ratio, gap


def _seconds(make: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    make()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
