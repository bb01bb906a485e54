"""The cost of pruning: a training step with streamed importance and a new mask every step, compared with the same step without.

Both use `fit` on the same real model, data, adapters and seed; pairs are interleaved, and the median of the pairs' ratios is
reported.
"""

from __future__ import annotations

import statistics

from benchmarks.drawn import drawn_adapter
from pomona.adapters import Adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import encode
from pomona.backbone.load import Backbone, load_backbone
from pomona.control import Fixed
from pomona.data import examples, number_rows
from pomona.data.corpora import docstring_rows
from pomona.data.tasks import Summarization
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Pruning, Tuning

BOUND = 1.15
PAIRS = 9
STEPS = 2
BATCH = 8


def run() -> bool:
    """Print the ratio of each pair and their median; whether the median is within the bound."""
    backbone = load_backbone()
    task = Summarization()
    rows = docstring_rows("numpy")[: STEPS * BATCH]
    encoded, _ = encode(examples(number_rows(rows), task, "docstrings of numpy"), backbone.tokenizer, 512)
    data = FitData(encoded)
    sources = [drawn_adapter(backbone, index) for index in range(2)]
    tokens = sum(len(example) for example in encoded) // STEPS
    print(f"SmolLM2-135M, 2 adapters of rank 8 on q and v, {BATCH} examples and {tokens} tokens a step, on {backbone.device}")
    _seconds(backbone, sources, data, pruned=True)
    _seconds(backbone, sources, data, pruned=False)
    ratios = []
    for pair in range(PAIRS):
        # Which of the two goes first alternates, so that a drift of the machine favours neither.
        order = (True, False) if pair % 2 else (False, True)
        seconds = {pruned: _seconds(backbone, sources, data, pruned=pruned) for pruned in order}
        ratios.append(seconds[True] / seconds[False])
        print(
            f"  pruned {seconds[True] / STEPS:.3f} s, unpruned {seconds[False] / STEPS:.3f} s a step, ratio {ratios[-1]:.3f}",
            flush=True,
        )
    median = statistics.median(ratios)
    print(f"median ratio of {PAIRS} pairs: {median:.3f} (bound {BOUND})")
    return median <= BOUND


def _seconds(backbone: Backbone, sources: list[Adapter], data: FitData, *, pruned: bool) -> float:
    tuning = Tuning(epochs=1, batch_size=BATCH, dropout=0.0)
    with attached(backbone, sources) as attachment:
        fitted = fit(attachment, data, tuning, pruning=Pruning() if pruned else None, controller=Fixed(0.5))
    return fitted.train_seconds


if __name__ == "__main__":
    run()
