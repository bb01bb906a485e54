"""Short runs of `fit` on a tiny model, and what to ask of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_examples

import pomona.tuning.keep_best as keep_best_module
from pomona.adapters import Adapter
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, TrainableMerge
from pomona.merging.weights import Weight
from pomona.tuning.checkpoint import load_checkpoint, save_checkpoint
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Fitted, Tuning
from pomona.tuning.state import typed

T = TypeVar("T")

# 7 examples in batches of 2, two batches a step: 4 batches, 2 steps an epoch, the last of a smaller batch.
DATA = FitData(tiny_examples(7, seed=1), tiny_examples(4, seed=2), tiny_examples(3, seed=3))
TUNING = Tuning(epochs=4, learning_rate=5e-3, batch_size=2, accumulation_steps=2, dropout=0.1, checkpoint_steps=1)
STEPS = 8
RANKS = (2, 3)


def two_adapters(backbone: Backbone) -> list[Adapter]:
    """Of ranks 2 and 3, the second with a scaling of its own."""
    return [tiny_adapter(backbone, seed=1, rank=RANKS[0]), tiny_adapter(backbone, seed=2, rank=RANKS[1], scaling=1.5)]


def train(
    backbone: Backbone,
    data: FitData = DATA,
    tuning: Tuning = TUNING,
    adapters: Sequence[Adapter] | None = None,
    weights: Sequence[Weight] | None = None,
    how: TrainableMerge | None = None,
    look: Any = None,
    **options: Any,
) -> Fitted:
    """`fit` on a fresh attachment, by default of the same two adapters; `look(event, attachment)` is told each event."""
    with attached(backbone, adapters or two_adapters(backbone), weights, tuning.dropout, how or Concat()) as attachment:
        if look is not None:
            options["emit"] = lambda event: look(event, attachment)
        return fit(attachment, data, tuning, **options)


def script_dev_losses(monkeypatch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
    """Let the epochs' dev losses be these, in the order in which they are asked for; probes stay as they are."""
    given = iter(losses)
    monkeypatch.setattr(keep_best_module, "example_losses", lambda backbone, examples, batch_size: [next(given)] * len(examples))


def through_a_checkpoint(state: T, folder: Path) -> T:
    """The state as a run that is resumed reads it."""
    save_checkpoint(folder / "state.safetensors", state)
    return typed(type(state), load_checkpoint(folder / "state.safetensors", torch.device("cpu")))


def zeros(adapter: Adapter) -> list[tuple[int, int]]:
    """(zeros, entries) of every factor."""
    return [(int((matrix == 0).sum()), matrix.numel()) for path in adapter for matrix in (adapter[path].A, adapter[path].B)]


def quota(prune_ratio: float, entries: int) -> int:
    """How many go of a factor's entries where the two adapters stand beside each other: of each its own share."""
    return sum(math.floor(round(prune_ratio * (entries * rank // sum(RANKS)), 9)) for rank in RANKS)


def attached_zeros(attachment: Attachment, within: str = "") -> list[tuple[int, int]]:
    """(zeros, entries) of every factor that is trained and has this in its name."""
    return [(int((one == 0).sum()), one.numel()) for name, one in attachment.parameters().items() if within in name]


def events(fitted: Fitted, kind: str) -> list[dict[str, Any]]:
    return [event for event in fitted.history if event["kind"] == kind]


def best_flags(fitted: Fitted) -> list[bool]:
    return [event["best"] for event in events(fitted, "epoch")]


def assert_same(one: Fitted, other: Fitted) -> None:
    """Equal in everything but time."""
    assert one.adapter.fingerprint() == other.adapter.fingerprint()
    for field in dataclasses.fields(Fitted):
        if field.name not in {"adapter", "train_seconds", "probe_seconds"}:
            assert getattr(one, field.name) == getattr(other, field.name), field.name
