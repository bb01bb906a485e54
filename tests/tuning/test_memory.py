"""A pass that memory does not hold: the step begins again in smaller passes, with the same sums."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.tiny import tiny_backbone
from tests.tuning.runs import DATA, TUNING, train
from torch import Tensor

import pomona.tuning.loop as loop
from pomona.backbone.load import Backbone
from pomona.control import Fixed
from pomona.engines import Native
from pomona.errors import PomonaError
from pomona.tuning.progress import Silent
from pomona.tuning.settings import Pruning

WHOLE = dataclasses.replace(TUNING, batch_size=4, accumulation_steps=2, dropout=0.0, epochs=3)
PRUNED: dict[str, Any] = {"pruning": Pruning(), "controller": Fixed(0.4)}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


class Warned(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


class Memory:
    """Holds so many examples a pass; runs out in the forward or in the backward pass, with all work of it done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: str, examples: int) -> None:
        self.passes: list[int] = []
        forward, backward = loop.token_losses, Native.backward

        def losses(backbone: Backbone, batch: Any) -> Tensor:
            self.passes.append(len(batch.lengths))
            found = forward(backbone, batch)
            self.run_out(place == "forward", examples)
            return found

        def gradients(engine: Native, loss: Tensor) -> None:
            backward(engine, loss)
            self.run_out(place == "backward", examples)

        monkeypatch.setattr(loop, "token_losses", losses)
        monkeypatch.setattr(Native, "backward", gradients)

    def run_out(self, here: bool, examples: int) -> None:
        if here and self.passes[-1] > examples:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_the_sums_are_those_of_whole_batches(backbone: Backbone, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(backbone, tuning=WHOLE, **PRUNED)
    memory, progress = Memory(monkeypatch, place, examples=1), Warned()
    found = train(backbone, tuning=WHOLE, progress=progress, **PRUNED)
    # Seven examples in batches of four and three, one step an epoch: 4 do not fit, nor do 2, and then all go one by one.
    whole = [size for size in memory.passes if size > 1]
    assert whole in ([4, 2], [3, 2], [3, 4, 2])
    assert memory.passes[-7:] == [1] * 7
    assert len(memory.passes) >= len(whole) + 3 * 7
    assert found.tokens == expected.tokens
    for path in expected.adapter:
        for side in ("A", "B"):
            ours, theirs = getattr(found.adapter[path], side), getattr(expected.adapter[path], side)
            assert torch.equal(ours == 0, theirs == 0)
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert [event.get("loss") for event in found.history] == [
        pytest.approx(event["loss"], rel=1e-5) if "loss" in event else None for event in expected.history
    ]
    assert all(event["micro_batch"] == 1 for event in found.history if event["kind"] == "step")
    assert not any("micro_batch" in event for event in expected.history)
    assert progress.warnings[-1].startswith(
        "memory did not hold 2 examples in a pass of pomona: passes have up to 1 from step 1 on"
    )


def test_one_example_that_does_not_fit_ends_the_run_and_says_what_helps(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memory(monkeypatch, "forward", examples=0)
    with pytest.raises(PomonaError, match=r"memory does not hold a training step on one example.*gradient_checkpointing"):
        train(backbone, tuning=WHOLE)


def test_another_error_is_not_taken_for_it(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(backbone: Backbone, batch: Any) -> Tensor:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(loop, "token_losses", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(backbone, data=DATA, tuning=WHOLE)
