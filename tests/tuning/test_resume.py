"""Whatever a run is made of, one that was stopped after any step ends bit for bit as it would have."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tuning.runs import TUNING, assert_same, train

from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Coefficients, Concat, Linear
from pomona.control import Fixed, Grasp, Layerwise
from pomona.importance import GradientSmoothed, Magnitude
from pomona.tuning.settings import Event, Pruning

ALL = frozenset({0, 1})
SHORT = dataclasses.replace(TUNING, epochs=2)
STEPS = 4
LAYERWISE = Layerwise(groups=2, interval_steps=1, commit_level=0)
LEARNS = Grasp(interval_steps=1, commit_level=0)


def early(attachment: Attachment) -> list[float]:
    """Scores that fall from step to step, as the learning rate is high."""
    return [-float(parameter.detach().square().sum()) for parameter in attachment.parameters().values()]


def judge(attachment: Attachment) -> list[float]:
    """Some scores that depend on what is trained."""
    trained = attachment.parameters() or attachment.weight_parameters()
    return [float(parameter.detach().sum()) for parameter in trained.values()]


KINDS: dict[str, dict[str, Any]] = {
    "sum": {"how": Linear()},
    "sum that learns its ratio": {"how": Linear(), "controller": LEARNS},
    "initial": {"pruning": Pruning(reset="initial")},
    "initial that learns its ratio": {"pruning": Pruning(reset="initial"), "controller": LEARNS},
    "gradient_smoothed": {"pruning": Pruning(GradientSmoothed())},
    "weights": {"how": Concat(train_weights=True), "weights_learning_rate": 0.02},
    "weights of a sum": {"how": Linear(train_weights=True), "weights_learning_rate": 0.02},
    "coefficients": {"how": Concat(frozen=ALL, coefficients=Coefficients("layer")), "pruning": None},
    "gates": {"how": Concat(frozen=ALL, coefficients=Coefficients("component", binary=True)), "pruning": None, "judge": judge},
    "frozen": {"how": Concat(frozen=frozenset({0}))},
    "full_pass": {"pruning": Pruning(activations="full_pass")},
    "gradient checkpointing": {"tuning": dataclasses.replace(SHORT, gradient_checkpointing=True)},
    "once": {"pruning": Pruning(Magnitude(), schedule="once")},
    "components under a ramp": {"pruning": Pruning(granularity="rank", schedule="cubic", scope="global")},
    "modules at intervals": {"pruning": Pruning(granularity="module", interval_steps=3)},
    "ratios for two groups of layers": {"controller": LAYERWISE},
    "a search longer than an epoch": {"controller": dataclasses.replace(LEARNS, settle_fraction=0.8)},
    "a search longer than an epoch, with weights": {
        "controller": dataclasses.replace(LEARNS, settle_fraction=0.8),
        "how": Concat(train_weights=True),
        "judge": early,
    },
    "ratios for groups under a ramp": {"pruning": Pruning(schedule="linear"), "controller": Fixed((0.2, 0.7))},
    "judge": {"judge": judge},
    "feedback": {"pruning": Pruning(feedback="always", interval_steps=3), "how": Linear()},
    "feedback after a search, averaged": {
        "pruning": Pruning(feedback="always", reset="initial"),
        "controller": dataclasses.replace(LEARNS, settle_fraction=0.3),
        "tuning": dataclasses.replace(SHORT, average="ema"),
    },
    "judge with a tolerance": {
        "tuning": dataclasses.replace(SHORT, epochs=4, accumulation_steps=4),
        "judge": judge,
        "tolerance": 3.0,
    },
    "average": {"tuning": dataclasses.replace(SHORT, average="ema"), "judge": early},
    "average after a search, with weights": {
        "tuning": dataclasses.replace(SHORT, average="uniform", average_from=0.0),
        "controller": dataclasses.replace(LEARNS, settle_fraction=0.3),
        "how": Concat(train_weights=True),
    },
}
# At this rate masks move from step to step.
HIGH: dict[str, Any] = {"tuning": dataclasses.replace(SHORT, learning_rate=0.05), "pruning": Pruning(), "controller": Fixed(0.5)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_from_any_step_ends_bit_for_bit_as_it_would_have(llama: Backbone, tmp_path: Path, kind: str) -> None:
    path, options = tmp_path / "fit.safetensors", HIGH | KINDS[kind]

    def keep(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "step" and path.exists():  # told before the step is saved: the file is the last step's
            shutil.copy(path, tmp_path / str(int(event["step"]) - 1))  # pyright: ignore[reportArgumentType]

    whole = train(llama, checkpoint=path, look=keep, **options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "2", "3", path.name]
    for step in range(1, STEPS):
        torch.manual_seed(step)  # whatever the new process's own random state is
        told: list[Event] = []
        resumed = train(llama, checkpoint=tmp_path / str(step), look=lambda event, _, told=told: told.append(event), **options)
        assert_same(resumed, whole)
        assert told == whole.history


def test_recomputed_activations_train_the_same_factors(llama: Backbone) -> None:
    """With dropout, which must fall out the same in the second computation, and with statistics, which must not count it."""
    kept: dict[str, Any] = HIGH | {"tuning": SHORT}
    recomputed: dict[str, Any] = HIGH | {"tuning": dataclasses.replace(SHORT, gradient_checkpointing=True)}
    assert train(llama, **recomputed).adapter.fingerprint() == train(llama, **kept).adapter.fingerprint()
