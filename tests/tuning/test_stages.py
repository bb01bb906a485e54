"""Stages: coefficients first and factors after, within the steps of one run."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tuning.runs import TUNING, assert_same, events, train

from pomona.adapters import Adapter
from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Coefficients, Concat
from pomona.control import Fixed, Grasp
from pomona.errors import InputError
from pomona.tuning.settings import Event, Fitted, Pruning
from pomona.tuning.stages import Stage, stage_ends, steps_before_factors

HOW = Concat(coefficients=Coefficients("layer"))
STAGES = (Stage("coefficients", 0.4), Stage("factors", 0.6))  # of 8 steps: 3 and 5
RUN: dict[str, Any] = {"how": HOW, "stages": STAGES, "weights_learning_rate": 0.05}


@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5), st.integers(100, 10**6))
def test_the_stages_take_all_steps_in_order(parts: list[float], total_steps: int) -> None:
    stages = [Stage("factors", part / sum(parts)) for part in parts]
    ends = stage_ends(stages, total_steps)
    assert ends[-1] == total_steps
    for stage, first, last in zip(stages, [0, *ends], ends, strict=False):
        assert abs(last - first - stage.share * total_steps) <= 1.01


def test_pruning_begins_with_the_first_stage_of_factors() -> None:
    coefficients, factors = STAGES
    assert [steps_before_factors(one, 10) for one in (STAGES, (factors, coefficients), (coefficients,))] == [4, 0, 0]
    assert steps_before_factors([Stage("coefficients", 0.2), Stage("coefficients", 0.1), Stage("factors", 0.7)], 10) == 3


def test_a_stage_without_a_step_is_refused(llama: Backbone) -> None:
    stages = (Stage("coefficients", 0.01), Stage("factors", 0.99))
    with pytest.raises(InputError, match=r"^merge.train: a run of 8 optimizer steps leaves the stage coefficients none"):
        train(llama, **{**RUN, "stages": stages})


def snapshots(llama: Backbone, **options: Any) -> tuple[Fitted, list[dict[str, torch.Tensor]]]:
    """The result, and all parameters after each step."""
    seen: list[dict[str, torch.Tensor]] = []

    def look(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "step":
            trained = attachment.parameters() | attachment.weight_parameters()
            seen.append({name: parameter.detach().clone() for name, parameter in trained.items()})

    return train(llama, look=look, **RUN | options), seen


def test_each_stage_moves_its_own_parameters_alone_at_its_own_rate(llama: Backbone) -> None:
    tuning = dataclasses.replace(TUNING, weight_decay=0.1, learning_rate_decay=1.0)
    fitted, seen = snapshots(llama, tuning=tuning)
    assert [event["trained"] for event in events(fitted, "step")] == ["coefficients"] * 3 + ["factors"] * 5
    assert [event["learning_rate"] for event in events(fitted, "step")] == [0.05] * 3 + [TUNING.learning_rate] * 5
    for step, (before, after) in enumerate(itertools.pairwise(seen), start=2):
        for name in before:
            moved = not torch.equal(before[name], after[name])
            assert moved is (name.endswith("weights") is (step <= 3)), (step, name)


def test_the_first_stage_is_a_run_of_coefficients_alone(llama: Backbone) -> None:
    frozen = Concat(frozen=frozenset({0, 1}), coefficients=Coefficients("layer"))
    _, seen = snapshots(llama)
    _, alone = snapshots(llama, how=frozen, stages=())
    for step in range(3):
        assert all(torch.equal(seen[step][name], values) for name, values in alone[step].items())


@pytest.mark.parametrize("options", [{}, {"pruning": Pruning(), "controller": Fixed(0.5)}], ids=["unpruned", "pruned"])
def test_a_resumed_run_ends_bit_for_bit_as_it_would_have(llama: Backbone, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "fit.safetensors"

    def keep(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "step" and path.exists():
            shutil.copy(path, tmp_path / str(int(event["step"]) - 1))  # pyright: ignore[reportArgumentType]

    whole = train(llama, checkpoint=path, look=keep, **RUN | options)
    for step in (2, 3, 5):  # within a stage, between the stages, within the other
        assert_same(train(llama, checkpoint=tmp_path / str(step), **RUN | options), whole)
    with pytest.raises(InputError, match="belongs to another run"):
        train(llama, checkpoint=tmp_path / "5", **{**RUN, **options, "stages": STAGES[::-1]})


def zeros(adapter: Adapter) -> float:
    """Share of zeros of both factors of all modules."""
    entries = torch.cat([side.flatten() for path in adapter for side in (adapter[path].A, adapter[path].B)])
    return float((entries == 0).double().mean())


def test_pruning_and_its_schedule_count_from_the_first_step_of_factors(llama: Backbone) -> None:
    pruning = Pruning(schedule="linear", ramp_fraction=0.8)
    fitted = train(llama, pruning=pruning, controller=Fixed(0.5), **RUN)
    ratios = [event["prune_ratio"] for event in events(fitted, "step")]
    assert ratios == pytest.approx([0, 0, 0, 0.125, 0.25, 0.375, 0.5, 0.5])
    assert fitted.epoch == 4  # the only one whose factors are pruned at the ratio
    assert zeros(fitted.adapter) == pytest.approx(0.5, abs=0.01)


def test_a_ratio_is_learned_within_the_stage_of_factors(llama: Backbone) -> None:
    controller = Grasp(interval_steps=1, commit_level=0, settle_fraction=0.6)
    fitted = train(llama, pruning=Pruning(), controller=controller, **RUN)
    assert [event["step"] for event in events(fitted, "round")] == [4, 5, 6]
    assert [event["step"] for event in events(fitted, "settled")] == [6]
    assert fitted.answer is not None
    assert zeros(fitted.adapter) == pytest.approx(fitted.answer.prune_ratio, abs=0.03)


def test_the_best_epoch_may_be_one_of_coefficients(llama: Backbone) -> None:
    """Factors that are spoiled afterwards do not reach the export."""
    fitted, seen = snapshots(llama, tuning=dataclasses.replace(TUNING, learning_rate=3.0, gradient_clip=None))
    assert fitted.epoch == 1
    assert fitted.dev_loss == min(event["dev_loss"] for event in events(fitted, "epoch"))
    assert all(torch.equal(fitted.adapter[path].A, seen[0][f"{path}.A"]) for path in fitted.adapter)
