"""A step of the adaptive merge's published procedure, compared with Pomona's streamed step, and the overlap of the entries pruned
by both norms.

The reference (`published_peer`) takes 8 examples one by one, and after the optimizer step all 50 training examples one by one.
Pomona trains on the same 8 examples like `fit`, with the norms of the same pass.

Pairs are interleaved, and the median of the pairs' ratios is reported.

Two epochs, one with each kind of norm, show whether streamed norms prune the same entries as exact norms of a full pass; so do the
same factors after an epoch without pruning. The same factors after a pruned epoch cannot show it: entries just set to zero are so
much smaller than all others that any metric prunes them again, even one that uses no norms at all, which is printed for comparison.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.drawn import drawn_adapter
from benchmarks.published_peer import DROPOUT, PRUNE_RATIO, Parts, PublishedPeer
from pomona.adapters import Adapter
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import Encoded, encode, training_order
from pomona.backbone.load import Backbone, load_backbone
from pomona.backbone.loss import make_batch, token_losses
from pomona.data import examples, read_rows
from pomona.data.tasks import TitleGeneration
from pomona.importance import Magnitude
from pomona.seeding import stream
from pomona.tuning.live_masks import LiveMasks, Masks
from pomona.tuning.settings import Pruning
from pomona.tuning.statistics import Statistics

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "scitldr_title" / "en" / "train.jsonl"
TASK = TitleGeneration(language="en", max_document_characters=500)
ROWS, BATCH = 50, 8
PAIRS = 5
CLIP = 1.0
BOUND, AGREEMENT = 3.0, 0.95


def run() -> bool:
    """Print the ratio of each pair, their median, the parts of a step, and the agreement; whether both bounds are met."""
    backbone = load_backbone()
    train, _ = encode(examples(read_rows(DATA, {"title": "summary"}), TASK, "train")[:ROWS], backbone.tokenizer, 512)
    sources = [drawn_adapter(backbone, index) for index in range(2)]
    tokens = sum(map(len, train))
    print(f"SmolLM2-135M, 2 adapters of rank 8 on q and v, {BATCH} of {ROWS} examples ({tokens} tokens) a step, {backbone.device}")
    faster = _times(backbone, sources, train)
    agrees = _agreement(backbone, sources, train)
    return faster and agrees


def _times(backbone: Backbone, sources: Sequence[Adapter], train: Sequence[Encoded]) -> bool:
    published = PublishedPeer(sources, train, 1e-4)
    ratios: list[float] = []
    parts: dict[Any, list[Parts]] = {published: []}
    with attached(backbone, sources, dropout=DROPOUT) as attachment:
        streamed = OurStep(attachment, train, 1e-4, Pruning())
        parts[streamed] = []
        for step in (published, streamed):
            step(train[-BATCH:])
        for pair in range(PAIRS):
            chosen = train[pair * BATCH : (pair + 1) * BATCH]
            for step in (published, streamed) if pair % 2 else (streamed, published):
                parts[step].append(step(chosen))
            theirs, ours = (sum(parts[step][-1]) for step in (published, streamed))
            ratios.append(theirs / ours)
            print(f"  published {theirs:.2f} s, streamed {ours:.2f} s a step, ratio {ratios[-1]:.2f}", flush=True)
    for name, step in (("published", published), ("streamed", streamed)):
        train_s, full_pass_s, mask_s = (statistics.median(one) for one in zip(*parts[step], strict=True))
        print(f"  {name}: training {train_s:.2f} s, full pass {full_pass_s:.2f} s, importance and mask {mask_s:.3f} s")
    median = statistics.median(ratios)
    print(f"median ratio of {PAIRS} pairs: {median:.2f} (bound {BOUND:g})", flush=True)
    return median >= BOUND


def _agreement(backbone: Backbone, sources: Sequence[Adapter], train: Sequence[Encoded]) -> bool:
    streamed, exact = Pruning(), Pruning(activations="full_pass")
    pruned_by_streamed, of_its_factors, blind = _epoch(backbone, sources, train, streamed, exact, Pruning(metric=Magnitude()))
    (pruned_by_exact,) = _epoch(backbone, sources, train, exact)
    of_streamed, of_exact = _epoch(backbone, sources, train, streamed, exact, prune_ratio=0.0)
    print(f"Jaccard of the sets pruned at {PRUNE_RATIO:g} after an epoch with streamed and with exact norms:")
    runs = _jaccard("two epochs", pruned_by_streamed, pruned_by_exact)
    factors = _jaccard("the same factors, not pruned before", of_streamed, of_exact)
    print(f"  (bound of both {AGREEMENT:g})")
    _jaccard("the same factors, pruned before", pruned_by_streamed, of_its_factors)
    _jaccard("the same, magnitude alone against exact norms", blind, of_its_factors)
    return min(runs, factors) >= AGREEMENT


def _epoch(
    backbone: Backbone,
    sources: Sequence[Adapter],
    train: Sequence[Encoded],
    pruning: Pruning,
    *others: Pruning,
    prune_ratio: float = PRUNE_RATIO,
) -> list[Masks]:
    """After the last optimizer step of an epoch, before its mask: what `pruning` then prunes, and what others would."""
    torch.manual_seed(0)
    with attached(backbone, sources, dropout=DROPOUT) as attachment:
        step = OurStep(attachment, train, 2e-4, pruning)
        *batches, last = training_order([len(example) for example in train], BATCH, stream(0, "batches", 0))
        for indices in batches:
            step.train([train[index] for index in indices])
            step.masks.reselect(prune_ratio)
        step.train([train[index] for index in last])
        found = []
        for one in (pruning, *others):
            statistics = step.statistics if one is pruning else Statistics(attachment, one, train, BATCH)
            # New masks prune nothing, as `LiveMasks.reselect` starts from none.
            masks = LiveMasks(attachment, one, statistics, step.optimizer)
            found.append(masks.select(masks.scores(), PRUNE_RATIO))
    return found


def _overlap(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Jaccard index of the pruned sets: entries that both prune over entries that either prunes; 1 where neither prunes any."""
    both = sum(int((a & b).sum()) for a, b in zip(one, other, strict=True))
    either = sum(int((a | b).sum()) for a, b in zip(one, other, strict=True))
    return both / either if either else 1.0


def _jaccard(what: str, one: Masks, other: Masks) -> float:
    whole, of_A, of_B = (
        _overlap(*([mask for name, mask in masks.items() if name.endswith(ending)] for masks in (one, other)))
        for ending in ("", ".A", ".B")
    )
    print(f"  {what}: {whole:.4f} (A {of_A:.4f}, B {of_B:.4f})", flush=True)
    return whole


class OurStep:
    """Pomona's step, driven as `fit` drives it, so that its parts can be timed and its last mask be looked at."""

    def __init__(self, attachment: Attachment, train: Sequence[Encoded], learning_rate: float, pruning: Pruning) -> None:
        self._attachment = attachment
        self._parameters = list(attachment.parameters().values())
        self.optimizer = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.0, fused=True)
        self.statistics = Statistics(attachment, pruning, train, BATCH)
        self.masks = LiveMasks(attachment, pruning, self.statistics, self.optimizer)

    def __call__(self, chosen: Sequence[Encoded]) -> Parts:
        started = time.perf_counter()
        self.train(chosen)
        trained = time.perf_counter()
        self.masks.reselect(PRUNE_RATIO)
        return Parts(trained - started, 0.0, time.perf_counter() - trained)

    def train(self, chosen: Sequence[Encoded]) -> None:
        """Gradients and norms of one batch, and the optimizer's step."""
        backbone = self._attachment.backbone
        self._attachment.train(True)
        batch = make_batch(backbone, chosen)
        self.statistics.before_forward(batch)
        loss = token_losses(backbone, batch).sum() / len(batch.targets)
        self.statistics.after_forward()
        loss.backward()
        self._attachment.train(False)
        self.statistics.after_backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    run()
