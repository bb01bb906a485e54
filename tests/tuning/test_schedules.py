"""Which ratio is in force after each step, which epoch may be chosen, and by what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.tuning.runs import (
    DATA,
    STEPS,
    TUNING,
    attached_zeros,
    best_flags,
    events,
    quota,
    script_dev_losses,
    train,
    zeros,
)

from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.control import Fixed, Grasp
from pomona.errors import InputError
from pomona.importance import Magnitude
from pomona.tuning.settings import Event, Pruning

RATIO = 0.6
# The first step at which a ramp over 0.55 of 8 steps has its full ratio is 5; the ends of the epochs are 2, 4, 6 and 8.
RAMP = 5
EXPECTED: dict[str, Callable[[int], float]] = {
    "constant": lambda step: RATIO,
    "once": lambda step: RATIO,
    "linear": lambda step: RATIO * min(step / RAMP, 1.0),
    "cubic": lambda step: RATIO * (1 - (1 - min(step / RAMP, 1.0)) ** 3),
}


@pytest.mark.parametrize("schedule", EXPECTED)
def test_after_each_step_the_zeros_are_those_of_the_scheduled_ratio(llama: Backbone, schedule: Any) -> None:
    seen: dict[int, float] = {}

    def look(event: Event, attachment: Attachment) -> None:
        if event["kind"] != "step":
            return
        step: Any = event["step"]
        seen[step] = event["prune_ratio"]  # pyright: ignore[reportArgumentType]
        expected = EXPECTED[schedule](step)
        for count, entries in attached_zeros(attachment):
            assert count == quota(expected, entries)

    train(llama, look=look, pruning=Pruning(schedule=schedule, ramp_fraction=0.55), controller=Fixed(RATIO))
    assert seen == pytest.approx({step: EXPECTED[schedule](step) for step in range(1, STEPS + 1)}, abs=1e-12)
    assert seen[STEPS] == RATIO


def test_once_holds_the_mask_of_the_first_step(llama: Backbone) -> None:
    """At a rate at which a mask that is selected anew moves; what is pruned once stays so."""

    def masks(schedule: Any) -> list[list[torch.Tensor]]:
        kept: list[list[torch.Tensor]] = []

        def look(event: Event, attachment: Attachment) -> None:
            if event["kind"] == "step":
                kept.append([parameter.detach() == 0 for parameter in attachment.parameters().values()])

        tuning = dataclasses.replace(TUNING, learning_rate=0.1)
        train(llama, tuning=tuning, look=look, pruning=Pruning(schedule=schedule), controller=Fixed(RATIO))
        assert len(kept) == STEPS
        return kept

    once, constant = masks("once"), masks("constant")
    assert all(torch.equal(mask, first) for step in once for mask, first in zip(step, once[0], strict=True))
    assert all(torch.equal(one, other) for one, other in zip(once[0], constant[0], strict=True))
    assert any(not torch.equal(mask, first) for mask, first in zip(constant[-1], constant[0], strict=True))


def test_an_interval_follows_the_ramp_where_it_selects_and_at_the_ends_of_epochs(llama: Backbone) -> None:
    """The ratio is told at each step; the mask is that of the last selection, regrown where nothing has been selected since."""
    counts: dict[int, list[int]] = {}

    def look(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "step":
            counts[event["step"]] = [count for count, _ in attached_zeros(attachment)]  # pyright: ignore[reportArgumentType]

    tuning = dataclasses.replace(TUNING, batch_size=1, accumulation_steps=1, epochs=1)  # 7 steps
    pruning = Pruning(Magnitude(), interval_steps=3, schedule="linear", ramp_fraction=1.0)
    fitted = train(llama, tuning=tuning, look=look, pruning=pruning, controller=Fixed(0.7))
    sizes = [entries for _, entries in zeros(fitted.adapter)]
    for step in (3, 6, 7):
        assert counts[step] == [quota(0.7 * step / 7, n) for n in sizes]
    assert sum(counts[1] + counts[2]) == 0
    assert sum(counts[4]) < sum(counts[3]) / 5


@pytest.mark.parametrize(("schedule", "flags"), [("linear", [False, False, True, False]), ("once", [True, False, False, False])])
def test_an_epoch_before_the_end_of_the_ramp_is_never_chosen(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, schedule: Any, flags: list[bool]
) -> None:
    """It is pruned at a lower ratio than the answer, so its dev loss is not even asked for."""
    script_dev_losses(monkeypatch, losses := [1.0, 2.0, 3.0, 4.0][flags.index(True) :])
    pruning = Pruning(schedule=schedule, ramp_fraction=0.55)
    fitted = train(llama, pruning=pruning, controller=Fixed(RATIO))
    assert best_flags(fitted) == flags
    assert fitted.epoch == flags.index(True) + 1
    assert [event["dev_loss"] for event in events(fitted, "epoch")] == [None] * flags.index(True) + losses
    assert zeros(fitted.adapter) == [(quota(RATIO, n), n) for _, n in zeros(fitted.adapter)]


def test_patience_begins_with_the_first_epoch_that_may_be_chosen(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    script_dev_losses(monkeypatch, [3.0, 4.0, 2.0])  # of the third epoch and later ones
    tuning = dataclasses.replace(TUNING, epochs=5, patience_epochs=1)  # 10 steps, the ramp's end is 6
    fitted = train(llama, tuning=tuning, pruning=Pruning(schedule="cubic", ramp_fraction=0.55), controller=Fixed(RATIO))
    assert best_flags(fitted) == [False, False, True, False]
    assert fitted.epoch == 3


def test_a_ramp_to_the_very_end_leaves_the_last_epoch(llama: Backbone) -> None:
    fitted = train(llama, pruning=Pruning(schedule="cubic", ramp_fraction=1.0), controller=Fixed(RATIO))
    assert best_flags(fitted) == [False, False, False, True]
    assert events(fitted, "step")[-1]["prune_ratio"] == RATIO


@pytest.mark.parametrize("schedule", ["linear", "cubic", "once"])
def test_a_controller_that_moves_the_ratio_itself_takes_no_schedule(llama: Backbone, schedule: Any) -> None:
    with pytest.raises(InputError, match=r"^pruning\.schedule: a controller that learns .*Use constant"):
        train(llama, pruning=Pruning(schedule=schedule), controller=Grasp())


# Chosen by a judge ------------------------------------------------------------------------------------------------------


class Judge:
    """Scores of three dev examples, an epoch after the other, whose means are the ones given."""

    def __init__(self, *means: float) -> None:
        self.left = [[mean - 1.0, mean, mean + 1.0] for mean in means]
        self.exports: list[str] = []

    def __call__(self, attachment: Attachment) -> list[float]:
        self.exports.append(attachment.export().fingerprint())
        return self.left[len(self.exports) - 1]


@pytest.mark.parametrize("pruning", [None, Pruning(), Pruning(reset="initial")], ids=["none", "zero", "initial"])
def test_the_best_epoch_is_the_judge_s_not_that_of_the_dev_loss(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, pruning: Pruning | None
) -> None:
    script_dev_losses(monkeypatch, [4.0, 3.0, 2.0, 1.0])
    judge = Judge(20.0, 50.0, 50.0, 30.0)  # of equals the first
    fitted = train(llama, judge=judge, pruning=pruning, controller=Fixed(RATIO))
    assert (fitted.epoch, fitted.dev_loss, fitted.dev_scores) == (2, 3.0, (49.0, 50.0, 51.0))
    assert best_flags(fitted) == [True, True, False, False]
    assert [event["dev_score"] for event in events(fitted, "epoch")] == [20.0, 50.0, 50.0, 30.0]
    assert [event["dev_loss"] for event in events(fitted, "epoch")] == [4.0, 3.0, 2.0, 1.0]
    # What is exported is what was judged, and that was pruned already.
    assert fitted.adapter.fingerprint() == judge.exports[1]
    assert len(set(judge.exports)) == 4
    if pruning is not None and pruning.reset == "zero":
        assert zeros(fitted.adapter) == [(quota(RATIO, n), n) for _, n in zeros(fitted.adapter)]


def test_patience_is_the_judge_s(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    script_dev_losses(monkeypatch, [4.0, 3.0, 2.0, 1.0])
    tuning = dataclasses.replace(TUNING, patience_epochs=1)
    fitted = train(llama, tuning=tuning, judge=Judge(10.0, 20.0, 15.0, 90.0))
    assert best_flags(fitted) == [True, True, False]
    script_dev_losses(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    fitted = train(llama, tuning=tuning, judge=Judge(10.0, 20.0, 30.0, 40.0))
    assert best_flags(fitted) == [True] * 4


def test_without_a_judge_the_scores_are_minus_the_losses_of_what_is_exported(llama: Backbone) -> None:
    fitted = train(llama, pruning=Pruning(), controller=Fixed(RATIO))
    with attached(llama, [fitted.adapter]):
        losses = example_losses(llama, DATA.dev, 1)
    assert fitted.dev_scores == pytest.approx([-loss for loss in losses], abs=1e-5)
    assert all("dev_score" not in event for event in events(fitted, "epoch"))


def test_without_dev_examples_there_are_no_scores_and_no_judge_is_asked(llama: Backbone) -> None:
    data = dataclasses.replace(DATA, dev=())
    fitted = train(llama, data, dataclasses.replace(TUNING, epochs=1), judge=Judge())
    assert (fitted.epoch, fitted.dev_scores) == (1, ())
