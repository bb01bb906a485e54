"""Candidate masks side by side in one forward pass, compared with one after another: the losses of 16 examples under 4 masks.

The reference is `example_losses` with the parameters set to each candidate's values in turn, in batches of 8 and of 16 examples.
Pairs are interleaved, and the median of the pairs' ratios is reported. An accelerator gains if a pass of one candidate leaves it
waiting for the host; a CPU is already busy with a batch of a few hundred tokens, so the ratio has no bound. On a CPU the process'
seconds on one core are counted, which other work on the machine hardly changes. Results may differ only by rounding.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.drawn import drawn_adapter
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import Encoded, encode
from pomona.backbone.candidates import candidate_losses
from pomona.backbone.load import load_backbone
from pomona.backbone.loss import example_losses
from pomona.data import examples, read_rows
from pomona.data.tasks import TitleGeneration
from pomona.seeding import stream

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "scitldr_title" / "en" / "train.jsonl"
CANDIDATES, EXAMPLES = 4, 16
CUTS = (40, 200)
"""Characters of a document: the shorter the examples, the less there is to do in a pass of one candidate."""
TOKENS = (1024, 2048, 4096, 1 << 20)
PAIRS = 3
CLOSE = 1e-4
"""Nats a token: 30 layers round differently where products have other shapes."""

Losses = list[list[float]]


def run() -> bool:
    """Print the seconds of each way and the ratios, for documents cut to two lengths; whether all ways agree."""
    torch.set_num_threads(1)
    agree = [_measure(most_characters) for most_characters in CUTS]
    return all(agree)


def _measure(most_characters: int) -> bool:
    backbone = load_backbone()
    task = TitleGeneration(language="en", max_document_characters=most_characters)
    rows = examples(read_rows(DATA, {"title": "summary"}), task, "micro dev")[:EXAMPLES]
    encoded, _ = encode(rows, backbone.tokenizer, 512)
    tokens = sum(map(len, encoded))
    print(f"SmolLM2-135M, {CANDIDATES} masks, {EXAMPLES} examples of {tokens} tokens together, on {backbone.device}")
    with attached(backbone, [drawn_adapter(backbone, index) for index in range(2)]) as attachment:
        candidates = _drawn_masks(attachment)
        ways: dict[str, Callable[[], Losses]] = {
            f"one by one, {size} examples a pass": lambda size=size: _one_by_one(attachment, encoded, candidates, size)
            for size in (8, EXAMPLES)
        }
        ways |= {
            f"side by side, {most} tokens a pass": lambda most=most: candidate_losses(attachment, encoded, candidates, most)
            for most in TOKENS
            if most <= CANDIDATES * tokens or most == TOKENS[-1]
        }
        return _compare(ways, time.process_time if backbone.device.type == "cpu" else time.perf_counter)


def _compare(ways: Mapping[str, Callable[[], Losses]], clock: Callable[[], float]) -> bool:
    """Time each way in turn, in an order that goes back and forth, against the first."""
    peer, *_ = ways
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    gap = 0.0
    expected = torch.tensor(ways[peer]())
    for pair in range(PAIRS):
        for way in [*ways][:: 1 if pair % 2 else -1]:
            started = clock()
            found = ways[way]()
            seconds[way].append(clock() - started)
            gap = max(gap, float((torch.tensor(found) - expected).abs().nan_to_num(torch.inf).max()))
    for way, taken in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds[peer], taken, strict=True)]
        shown = f"{statistics.median(taken):6.2f} s, {statistics.median(ratios):.3f} times the first's speed"
        print(f"  {way:<38} {shown} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    print(f"largest gap {gap:.1e} nats a token (bound {CLOSE:g})", flush=True)
    return gap <= CLOSE


def _drawn_masks(attachment: Attachment) -> list[dict[str, Tensor]]:
    """The present factors with 20, 40, 60 and 80 % of their entries set to zero."""
    found = []
    for place in range(CANDIDATES):
        generator, kept = stream(0, "mask", place), 0.8 - 0.2 * place
        parameters = attachment.parameters().items()
        found.append(
            {
                name: value.detach() * (torch.rand(value.shape, generator=generator) < kept).to(value.device)
                for name, value in parameters
            }
        )
    return found


def _one_by_one(
    attachment: Attachment, encoded: Sequence[Encoded], candidates: Sequence[Mapping[str, Tensor]], batch_size: int
) -> Losses:
    """As a trial does it: the data of each parameter exchanged, and put back."""
    parameters = attachment.parameters()
    kept = {name: parameter.data for name, parameter in parameters.items()}
    found = []
    for candidate in candidates:
        for name, parameter in parameters.items():
            parameter.data = candidate[name]
        found.append(example_losses(attachment.backbone, encoded, batch_size))
    for name, parameter in parameters.items():
        parameter.data = kept[name]
    return found


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
