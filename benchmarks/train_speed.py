"""Training: tokens per second compared with Hugging Face's Trainer and TRL's SFTTrainer with PEFT, both adapters active and
trainable, and the time by operation.

The same model, examples, batch size, optimizer and dropout. The Trainer has its defaults, so it shuffles, pads to the longest
example of a batch and computes all logits; SFTTrainer has the fastest of four configurations, found on the first share. Pomona is
measured with and without pruning after every step. Each pair trains on its own examples. The peers' padding depends on the
variation of lengths: the bounds apply to whole documents; the figure for documents cut to nearly equal lengths, the smallest
possible gain, has no bound.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.drawn import drawn_adapter
from benchmarks.gemma import gemma_folder
from benchmarks.trainer_peer import epoch_clock, two_adapters
from benchmarks.trl_peer import CONFIGURATIONS, SftTrainer
from pomona.adapters import Adapter, write_adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded, encode
from pomona.backbone.embedded import embedded_model
from pomona.backbone.load import Backbone, load_backbone
from pomona.backbone.speed.frozen_products import product
from pomona.control import Fixed
from pomona.data import examples, read_rows
from pomona.data.tasks import Task, TitleGeneration
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Pruning, Tuning

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EXAMPLES, BATCH, DROPOUT, RATE = 24, 8, 0.05, 1e-4
PAIRS = 5
KINDS = (
    ("matrix products", ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::linear", "mkldnn::_linear")),
    ("attention", ("scaled_dot_product",)),
    ("random numbers", ("random", "bernoulli", "dropout")),
    ("softmax and loss", ("softmax", "exp", "amax", "nll", "gather")),
    ("optimizer", ("adam", "foreach")),
)


@dataclass(frozen=True)
class Setting:
    """A model, the titles that it learns to write, and how many times the peers' speeds are asked for, if that is."""

    label: str
    folder: Callable[[], Path]
    data: str
    task: Task
    bound: float | None
    bound_trl: float | None


SETTINGS = (
    Setting("SmolLM2-135M, English", embedded_model, "scitldr_title/en", TitleGeneration(language="en"), 2.0, 1.5),
    Setting(
        "SmolLM2-135M, documents cut to 600 characters",
        embedded_model,
        "scitldr_title/en",
        TitleGeneration(language="en", max_document_characters=600),
        None,
        None,
    ),
    Setting("Gemma 3 270M, Chinese", gemma_folder, "csl_title/zh", TitleGeneration(language="zh"), 5.0, 3.0),
)


def run() -> bool:
    """Print each pair, the median ratios, the share of the machine's speed and the profile; whether the bounds are met."""
    met = [_measure(setting) for setting in SETTINGS]
    return all(met)


def _measure(setting: Setting) -> bool:
    warnings.simplefilter("ignore", FutureWarning)
    folder = setting.folder()
    backbone = load_backbone(str(folder))
    sources = [drawn_adapter(backbone, index) for index in range(2)]
    print(f"{setting.label}: batches of {BATCH}, {EXAMPLES} examples a pair")
    first, *others = _shares(setting, backbone)
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch) / str(index) for index in range(len(sources))]
        for source, place in zip(sources, places, strict=True):
            write_adapter(source, place)
        _ours(backbone, sources, first, pruned=True)
        trl = SftTrainer(folder, places, BATCH, DROPOUT, RATE, Path(scratch) / "trl")
        best = trl.fastest(first)
        # Where mixed precision is fastest for the peer, Pomona has a bfloat16 base against it.
        against = load_backbone(str(folder), dtype="bfloat16") if CONFIGURATIONS[best].get("bf16") else backbone
        ratios, with_pruning, rates, to_trl = [], [], [], []
        for encoded in others:
            tokens = sum(map(len, encoded))
            completions = sum(len(example) - example.completion_start for example in encoded)
            before = _product_rate()
            plain = _ours(backbone, sources, encoded, pruned=False)
            between = _product_rate()
            pruned = _ours(backbone, sources, encoded, pruned=True)
            theirs = _trainer(folder, places, encoded, Path(scratch) / "trainer")
            ratios.append(theirs / plain)
            also = plain if against is backbone else _ours(against, sources, encoded, pruned=False)
            to_trl.append(trl.seconds(encoded, best) / also)
            with_pruning.append(theirs / pruned)
            rates.append(_arithmetic(backbone, sources, tokens, completions) / plain / ((before + between) / 2))
            print(
                f"  {tokens} tokens, {completions} of them completion; "
                f"a second: {tokens / plain:.0f}, pruned {tokens / pruned:.0f}, Trainer {tokens / theirs:.0f}; "
                f"times the Trainer's speed {ratios[-1]:.2f}, pruned {with_pruning[-1]:.2f}; times SFTTrainer's {to_trl[-1]:.2f}; "
                f"{rates[-1]:.0%} of the machine's matrix products ({before:.0f} and {between:.0f} GFLOP/s)",
                flush=True,
            )
    ratio, ratio_trl = statistics.median(ratios), statistics.median(to_trl)
    print(
        f"median of {len(ratios)}: {ratio:.2f} times the Trainer's speed"
        + ("" if setting.bound is None else f" (bound {setting.bound})")
        + f", pruned {statistics.median(with_pruning):.2f}; {ratio_trl:.2f} times SFTTrainer's ({best})"
        + ("" if setting.bound_trl is None else f" (bound {setting.bound_trl})")
        + f"; {statistics.median(rates):.0%} of the machine's speed"
    )
    _profile(backbone, sources, first)
    return (setting.bound is None or ratio >= setting.bound) and (setting.bound_trl is None or ratio_trl >= setting.bound_trl)


def _shares(setting: Setting, backbone: Backbone) -> list[tuple[Encoded, ...]]:
    """Examples to warm up with, and those of each pair."""
    rows = examples(read_rows(DATA / setting.data / "train.jsonl", {"title": "summary"}), setting.task, "train")
    encoded, _ = encode(rows[: EXAMPLES * (PAIRS + 1)], backbone.tokenizer, 512)
    return [encoded[start : start + EXAMPLES] for start in range(0, len(encoded), EXAMPLES)]


def _ours(backbone: Backbone, sources: Sequence[Adapter], encoded: Sequence[Encoded], *, pruned: bool) -> float:
    """Seconds of an epoch."""
    tuning = Tuning(epochs=1, batch_size=BATCH, dropout=DROPOUT, learning_rate=RATE)
    with attached(backbone, sources, dropout=DROPOUT) as attachment:
        fitted = fit(attachment, FitData(encoded), tuning, pruning=Pruning() if pruned else None, controller=Fixed(0.5))
    return fitted.train_seconds


def _trainer(folder: Path, adapters: Sequence[Path], encoded: Sequence[Encoded], scratch: Path) -> float:
    """Seconds of an epoch of the Trainer, its preparation left out."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    clock = epoch_clock()
    Trainer(
        model=two_adapters(folder, adapters, DROPOUT),
        args=TrainingArguments(
            output_dir=str(scratch),
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=RATE,
            weight_decay=0.0,
            max_grad_norm=1.0,
            report_to=[],
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=[_labelled(example) for example in encoded],  # pyright: ignore[reportArgumentType]
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[clock],
    ).train()
    return clock.seconds


def _labelled(example: Encoded) -> dict[str, list[int]]:
    labels = [-100] * example.completion_start + list(example.tokens[example.completion_start :])
    return {"input_ids": list(example.tokens), "attention_mask": [1] * len(example), "labels": labels}


def _product_rate(size: int = 1536, repeats: int = 6) -> float:
    """GFLOP/s of one large fp32 matrix product, by whichever library is faster here: the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds) / 1e9


def _arithmetic(backbone: Backbone, sources: Sequence[Adapter], tokens: int, completions: int) -> float:
    """GFLOP of the products that an epoch cannot do without; attention's own are left out.

    Forward and backward by the inputs through every linear module, and through the head for completions; forward and both
    gradients of the adapters.
    """
    body = sum(out * into for out, into in backbone.shapes().values())
    head = backbone.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    low_rank = sum(pair.A.numel() + pair.B.numel() for source in sources for pair in (source[module] for module in source))
    return (4 * tokens * body + 4 * completions * head.weight.numel() + 6 * tokens * low_rank) / 1e9


def _profile(backbone: Backbone, sources: Sequence[Adapter], encoded: Sequence[Encoded]) -> None:
    """Print the shares of an epoch's time by kind of operation."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        _ours(backbone, sources, encoded, pruned=True)
    spent: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = next((kind for kind, parts in KINDS if any(part in event.key.lower() for part in parts)), "elementwise and the rest")
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    shares = sorted(spent.items(), key=lambda item: -item[1])
    print("  a pruned epoch's time: " + ", ".join(f"{kind} {seconds / total:.1%}" for kind, seconds in shares))


if __name__ == "__main__":
    run()
