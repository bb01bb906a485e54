"""Generation: the same text as transformers' own, and the speed-up.

References, on the same prompts with the same trained adapter: transformers' `generate` in batches of 8 in the data's order with
PEFT's adapter unmerged, and the published procedure, one prompt at a time without a cache. Both references stop at the model's end
token, which the adapter has learned; Pomona also stops at a line end. Texts are compared up to the first line end.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gemma import gemma_folder
from pomona.adapters import read_adapter
from pomona.backbone.attach import attached
from pomona.backbone.embedded import embedded_model
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone, load_backbone
from pomona.backbone.prompts import prompt_tokens
from pomona.data import examples, read_rows
from pomona.data.tasks import Task, TitleGeneration
from pomona.runs.recipe import Lora
from pomona.runs.sources import train_cached
from pomona.tuning.progress import Silent
from pomona.tuning.settings import Tuning

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PROMPTS, TIMED, PUBLISHED = 100, 64, 4
PAIRS = 3
BATCH, PEER_BATCH = 32, 8
AGAINST_PEFT, AGAINST_PUBLISHED = 1.5, 6.0
IDENTICAL, NEAR = 0.99, 1e-3


@dataclass(frozen=True)
class Setting:
    """A model, and the titles that it is to write."""

    label: str
    folder: Callable[[], Path]
    data: str
    task: Task


SETTINGS = (
    Setting("SmolLM2-135M, English", embedded_model, "scitldr_title/en", TitleGeneration(language="en", max_new_tokens=32)),
    Setting("Gemma 3 270M, Chinese", gemma_folder, "csl_title/zh", TitleGeneration(language="zh", max_new_tokens=32)),
)


def run() -> bool:
    """Print rates, ratios and how many texts are the same; whether every bound is met."""
    met = [_measure(setting) for setting in SETTINGS]
    return all(met)


def _measure(setting: Setting) -> bool:
    from peft import PeftModel

    warnings.simplefilter("ignore", FutureWarning)
    folder = str(setting.folder())
    backbone = load_backbone(folder)
    train, test = (
        examples(read_rows(DATA / setting.data / f"{part}.jsonl", {"title": "summary"}), setting.task, part)
        for part in ("train", "test")
    )
    adapter = train_cached(
        backbone,
        train[:50],
        Lora(),
        Tuning(epochs=2, learning_rate=5e-4, batch_size=5),
        seed=0,
        label="the benchmark's adapter",
        progress=Silent(),
    )
    peer: Any = PeftModel.from_pretrained(load_backbone(folder).model, str(adapter)).eval()
    prompts = [list(prompt_tokens(backbone.tokenizer, example, 480).tokens) for example in test[:PROMPTS]]
    print(f"{setting.label}: {len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens", flush=True)

    def ours(some: Sequence[list[int]] = prompts[:TIMED]) -> list[tuple[int, ...]]:
        with attached(backbone, [read_adapter(adapter)]) as attachment, attachment.folded():
            found = generate(backbone, some, max_new_tokens=setting.task.max_new_tokens, batch_size=BATCH)
        assert all(one is not None for one in found)
        return [one.tokens for one in found if one is not None]

    def theirs() -> list[list[int]]:
        return _transformers(peer, backbone, prompts[:TIMED], setting.task, PEER_BATCH, cached=True)

    mine = ours(prompts)
    ratios, rates = [], []
    for pair in range(PAIRS):
        order = (theirs, ours) if pair % 2 else (ours, theirs)
        seconds = {one: _seconds(one) for one in order}
        ratios.append(seconds[theirs] / seconds[ours])
        rates.append((TIMED / seconds[ours], TIMED / seconds[theirs]))
        print(f"  {rates[-1][0]:.2f} examples a second, PEFT unmerged {rates[-1][1]:.2f}: {ratios[-1]:.2f} times", flush=True)
    few = prompts[: TIMED : TIMED // PUBLISHED]
    published = len(few) / _seconds(lambda: _transformers(peer, backbone, few, setting.task, 1, cached=False))
    against_peft = statistics.median(ratios)
    against_published = statistics.median(rate for rate, _ in rates) / published
    print(f"  published procedure {published:.3f} examples a second: {against_published:.1f} times (bound {AGAINST_PUBLISHED})")
    print(f"  against PEFT, median of {PAIRS} pairs: {against_peft:.2f} times (bound {AGAINST_PEFT})")
    same, gaps = _compared(peer, backbone, prompts, mine, setting.task)
    print(f"  same tokens as transformers one by one: {same} of {len(prompts)} (bound {IDENTICAL:.0%})")
    print(f"  where they differ, the two best logits are within {max(gaps, default=0.0):.1e} (bound {NEAR:g})", flush=True)
    return (
        against_peft >= AGAINST_PEFT
        and against_published >= AGAINST_PUBLISHED
        and same >= IDENTICAL * len(prompts)
        and all(gap <= NEAR for gap in gaps)
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _transformers(
    model: Any, backbone: Backbone, prompts: Sequence[list[int]], task: Task, batch: int, *, cached: bool
) -> list[list[int]]:
    """What transformers' own `generate` gives, padded on the left, in the order of the data."""
    tokenizer = backbone.tokenizer
    answers = []
    for first in range(0, len(prompts), batch):
        rows: Any = {"input_ids": prompts[first : first + batch]}
        padded = tokenizer.pad(rows, padding_side="left", return_tensors="pt")
        output = model.generate(
            **padded,
            max_new_tokens=task.max_new_tokens,
            do_sample=False,
            use_cache=cached,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        answers += output[:, padded["input_ids"].shape[1] :].tolist()
    return answers


@torch.no_grad()
def _compared(
    peer: Any, backbone: Backbone, prompts: Sequence[list[int]], mine: Sequence[Sequence[int]], task: Task
) -> tuple[int, list[float]]:
    """How many answers have the same tokens as transformers' one by one, and the gap of the two best logits where others part."""
    same, gaps = 0, []
    for prompt, answer in zip(prompts, mine, strict=True):
        (theirs,) = _transformers(peer, backbone, [prompt], task, 1, cached=True)
        parting = next((place for place, pair in enumerate(zip(answer, theirs, strict=False)) if pair[0] != pair[1]), None)
        same += parting is None
        if parting is not None:
            logits_V = peer(input_ids=torch.tensor([[*prompt, *theirs[:parting]]])).logits[0, -1]
            best, second = logits_V.topk(2).values.tolist()
            gaps.append(best - second)
    return same, gaps


if __name__ == "__main__":
    run()
