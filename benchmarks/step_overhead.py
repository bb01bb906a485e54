"""The cost of pruning and of averaging: a training step with streamed importance and a new mask every step, and one with an average
over the steps, each compared with the same step without.

All use `fit` on the same real model, data, adapters and seed; pairs are interleaved, and the median of the pairs' ratios is
reported.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

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

BOUNDS = {"pruned": 1.15, "averaged": 1.05, "pruned with feedback": 1.15}
PAIRS = 9
STEPS = 2
BATCH = 8

_PLAIN = Tuning(epochs=1, batch_size=BATCH, dropout=0.0)


def run() -> bool:
    """Print the ratio of each pair and the medians; whether each median is within its bound."""
    backbone = load_backbone()
    task = Summarization()
    rows = docstring_rows("numpy")[: STEPS * BATCH]
    encoded, _ = encode(examples(number_rows(rows), task, "docstrings of numpy"), backbone.tokenizer, 512)
    data = FitData(encoded)
    sources = [drawn_adapter(backbone, index) for index in range(2)]
    tokens = sum(len(example) for example in encoded) // STEPS
    print(f"SmolLM2-135M, 2 adapters of rank 8 on q and v, {BATCH} examples and {tokens} tokens a step, on {backbone.device}")
    ways: dict[str, tuple[Tuning, Pruning | None]] = {
        "pruned": (_PLAIN, Pruning()),
        "averaged": (replace(_PLAIN, average="ema"), None),
        "pruned with feedback": (_PLAIN, Pruning(feedback="always")),
    }
    met = True
    for name, way in ways.items():
        for one in (way, (_PLAIN, None)):
            _seconds(backbone, sources, data, *one)
        ratios = []
        for pair in range(PAIRS):
            # Which of the two goes first alternates, so that a drift of the machine favours neither.
            order = (True, False) if pair % 2 else (False, True)
            seconds = {with_it: _seconds(backbone, sources, data, *(way if with_it else (_PLAIN, None))) for with_it in order}
            ratios.append(seconds[True] / seconds[False])
            print(
                f"  {name} {seconds[True] / STEPS:.3f} s, plain {seconds[False] / STEPS:.3f} s a step, ratio {ratios[-1]:.3f}",
                flush=True,
            )
        median = statistics.median(ratios)
        print(f"{name}: median ratio of {PAIRS} pairs: {median:.3f} (bound {BOUNDS[name]})")
        met &= median <= BOUNDS[name]
    return met


def _seconds(backbone: Backbone, sources: list[Adapter], data: FitData, tuning: Tuning, pruning: Pruning | None) -> float:
    with attached(backbone, sources) as attachment:
        return fit(attachment, data, tuning, pruning=pruning, controller=Fixed(0.5)).train_seconds


if __name__ == "__main__":
    run()
