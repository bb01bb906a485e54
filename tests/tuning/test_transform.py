"""The contract of a transform: when each hook is called, and that its state goes through a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.tuning.runs import DATA, TUNING, two_adapters

from pomona.backbone.attach import attached
from pomona.backbone.batches import Batch
from pomona.backbone.load import Backbone
from pomona.engines import NATIVE
from pomona.errors import InputError
from pomona.tuning.loop import train
from pomona.tuning.progress import Silent
from pomona.tuning.transform import Run, Transform

# 7 examples in batches of 2, two batches a step: two steps an epoch.
TWO_EPOCHS = replace(TUNING, epochs=2, dropout=0.0)
STEP = ["before_forward", "after_forward"] * 2 + ["after_backward", "after_step", "between_steps"]


@dataclass
class Heard:
    calls: list[str]


class Listener(Transform):
    """Notes each call; `stops` raises after that step."""

    state: Heard
    state_type: ClassVar[Any] = Heard

    def __init__(self, stops: int = 0) -> None:
        self.state, self.stops = Heard([]), stops

    def before_forward(self, batch: Batch) -> None:
        self.state.calls.append("before_forward")

    def after_forward(self) -> None:
        self.state.calls.append("after_forward")

    def after_backward(self, run: Run) -> None:
        self.state.calls.append("after_backward")
        assert all(parameter.grad is not None for parameter in run.parameters.values())

    def after_step(self, run: Run) -> Mapping[str, object]:
        self.state.calls.append("after_step")
        assert all(parameter.grad is None for parameter in run.parameters.values())
        return {"heard": run.state.step}

    def between_steps(self, run: Run) -> None:
        self.state.calls.append("between_steps")
        assert run.state.history[-1]["heard"] == run.state.step
        if run.state.step == self.stops:
            raise KeyboardInterrupt

    def end_epoch(self, run: Run) -> None:
        self.state.calls.append("end_epoch")

    def end(self, run: Run) -> None:
        self.state.calls.append("end")


def listen(backbone: Backbone, listener: Listener, checkpoint: Path | None = None, name: str = "run") -> Listener:
    with attached(backbone, two_adapters(backbone)) as attachment:
        optimizer = torch.optim.AdamW([{"params": list(attachment.parameters().values()), "first_rate": 1e-3}], lr=1e-3)
        run = Run(attachment, DATA, TWO_EPOCHS, optimizer, "system", 0, NATIVE, lambda event: None, Silent())
        train(run, {"listener": listener}, checkpoint, {"name": name})
    return listener


def test_when_each_hook_is_called(llama: Backbone) -> None:
    assert listen(llama, Listener()).state.calls == [*STEP, *STEP, "end_epoch", *STEP, *STEP, "end_epoch", "end"]


def test_the_state_of_a_transform_goes_through_a_checkpoint(llama: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        listen(llama, Listener(stops=3), path)  # checkpoints are of steps 1 and 2
    assert listen(llama, Listener(), path).state == listen(llama, Listener()).state


def test_a_checkpoint_of_another_run_is_refused(llama: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    listen(llama, Listener(), path)
    with pytest.raises(InputError, match=r"state.safetensors: this checkpoint belongs to another run"):
        listen(llama, Listener(), path, name="other")
