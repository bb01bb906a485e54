"""The average over steps: its formula, what is judged and exported, and its pruning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.tuning.runs import DATA, STEPS, TUNING, events, quota, train

from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, Linear
from pomona.control import Fixed, Grasp
from pomona.errors import InputError
from pomona.importance import Magnitude
from pomona.tuning.settings import Event, Fitted, Pruning, Tuning

WITHOUT_DEV = dataclasses.replace(DATA, dev=[])
EMA = dataclasses.replace(TUNING, average="ema", average_decay=0.7)
UNIFORM = dataclasses.replace(TUNING, average="uniform")
Values = dict[str, torch.Tensor]


def values(attachment: Attachment) -> Values:
    """A copy of all that is trained, in double precision."""
    trained = attachment.parameters() | attachment.weight_parameters()
    return {name: parameter.detach().double() for name, parameter in trained.items()}


def traced(backbone: Backbone, tuning: Tuning, **options: Any) -> tuple[list[Values], Values, Fitted]:
    """The parameters after each step of a run without a dev set, and those that the run ends with."""
    steps: list[Values] = []
    attachments: list[Attachment] = []

    def look(event: Event, attachment: Attachment) -> None:
        attachments[:] = [attachment]
        if event["kind"] == "step":
            steps.append(values(attachment))

    fitted = train(backbone, WITHOUT_DEV, tuning, look=look, **options)
    return steps, values(attachments[0]), fitted


def mean(steps: Sequence[Values], weights: Sequence[float]) -> Values:
    """The weighted mean of the parameters of the last steps."""
    used = steps[-len(weights) :]
    total = sum(weights)
    return {name: torch.stack([w * one[name] for w, one in zip(weights, used, strict=True)]).sum(0) / total for name in steps[0]}


@pytest.mark.parametrize(
    ("tuning", "weights"),
    [
        (EMA, [0.7 ** (STEPS - i) for i in range(1, STEPS + 1)]),
        (dataclasses.replace(EMA, average_from=0.3), [0.7 ** (6 - i) for i in range(1, 7)]),  # 0.3 of 8 steps: 2 are left out
        (UNIFORM, [1.0] * 4),
        (dataclasses.replace(UNIFORM, average_from=0.0), [1.0] * 8),
    ],
    ids=["ema", "ema of the last 6", "uniform", "uniform of all"],
)
def test_the_average_by_its_definition(llama: Backbone, tuning: Tuning, weights: list[float]) -> None:
    steps, found, fitted = traced(llama, tuning, how=Concat(train_weights=True), weights_learning_rate=0.05)
    assert len(steps) == STEPS
    expected = mean(steps, weights)
    assert found.keys() == expected.keys()
    assert any(name.endswith("weights") for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
        assert (value - steps[-1][name]).abs().max() > 1e-4, "far from the latest parameters"
    assert events(fitted, "epoch")[-1]["averaged_steps"] == len(weights)


def test_the_training_itself_is_not_changed(llama: Backbone) -> None:
    plain, averaged = train(llama), train(llama, tuning=EMA)
    assert events(plain, "step") == events(averaged, "step")
    assert [event["dev_loss"] for event in events(plain, "epoch")] != [event["dev_loss"] for event in events(averaged, "epoch")]
    assert plain.adapter.fingerprint() != averaged.adapter.fingerprint()


def test_the_average_is_judged_and_the_best_average_kept(llama: Backbone) -> None:
    """The judge prefers the second epoch; the first two are before the average begins in the run that starts later."""
    seen: list[Values] = []
    scores = iter([1.0, 4.0, 3.0, 2.0])

    def judge(attachment: Attachment) -> list[float]:
        seen.append(values(attachment))
        return [next(scores)]

    steps: list[Values] = []
    attachments: list[Attachment] = []

    def look(event: Event, attachment: Attachment) -> None:
        attachments[:] = [attachment]
        if event["kind"] == "step":
            steps.append(values(attachment))

    fitted = train(llama, tuning=EMA, judge=judge, look=look)
    assert fitted.epoch == 2
    for epoch, one in enumerate(seen, 1):
        for name, value in mean(steps[: 2 * epoch], [0.7 ** (2 * epoch - i) for i in range(1, 2 * epoch + 1)]).items():
            torch.testing.assert_close(one[name], value, atol=1e-6, rtol=1e-5)
    exported = values(attachments[0])
    assert all(torch.equal(exported[name], seen[1][name]) for name in exported)

    scores, seen, steps = iter([1.0, 2.0, 3.0, 4.0]), [], []
    fitted = train(llama, tuning=UNIFORM, judge=judge, look=look)
    assert ["averaged_steps" in event for event in events(fitted, "epoch")] == [False, False, True, True]
    for epoch in (1, 2):
        assert all(torch.equal(seen[epoch - 1][name], value) for name, value in steps[2 * epoch - 1].items())


KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "entries": (1, {}),
    "merged masks": (1, {"pruning": Pruning(masks="merged")}),
    "sum": (1, {"how": Linear()}),
    "sum with masks of its own": (1, {"how": Linear(), "pruning": Pruning(masks="adapter")}),
    "merge weights": (1, {"how": Concat(train_weights=True), "weights_learning_rate": 0.02}),
    "initial": (1, {"pruning": Pruning(reset="initial")}),
    "components": (1, {"pruning": Pruning(granularity="rank")}),
    "at intervals": (1, {"pruning": Pruning(interval_steps=3)}),
    "once": (1, {"pruning": Pruning(Magnitude(), schedule="once")}),
    "ramp": (4, {"pruning": Pruning(schedule="linear")}),
    "learned": (6, {"controller": Grasp(interval_steps=1, commit_level=0, settle_fraction=0.7)}),
}
"""Kind of run -> the first averaged step, and its options. 70 % of 8 steps are 5, a ramp ends after 4."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_is_exported_under_the_mask_in_force(llama: Backbone, kind: str) -> None:
    first, given = KINDS[kind]
    high = dataclasses.replace(EMA, learning_rate=0.05)  # masks move from step to step
    options: dict[str, Any] = {"pruning": Pruning(), "controller": Fixed(0.5)} | given
    steps, found, fitted = traced(llama, high, **options)
    n = STEPS - first + 1
    assert events(fitted, "epoch")[-1]["averaged_steps"] == n
    expected = mean(steps, [0.7 ** (n - i) for i in range(1, n + 1)])
    reset = traced_start(llama, **options) if kind == "initial" else {name: torch.zeros_like(one) for name, one in found.items()}
    moved = 0
    for name, value in expected.items():
        pruned = steps[-1][name] == reset[name] if name.rpartition(".")[2] in "AB" else torch.zeros_like(value, dtype=torch.bool)
        torch.testing.assert_close(found[name], torch.where(pruned, reset[name], value), atol=1e-6, rtol=1e-5)
        assert torch.equal(found[name][pruned], reset[name][pruned])
        moved += int((value[pruned] != reset[name][pruned]).sum())
        if kind in {"entries", "at intervals", "merge weights", "once", "ramp", "learned"} and name.rpartition(".")[2] in "AB":
            assert fitted.answer is not None
            assert int((found[name] == 0).sum()) == quota(fitted.answer.prune_ratio, value.numel()), name
    assert moved or kind in {"once", "components", "learned"}, "without the mask the average would not be sparse"


def traced_start(backbone: Backbone, **options: Any) -> Values:
    """The parameters before the first step."""
    from tests.tuning.runs import two_adapters

    from pomona.backbone.attach import attached

    with attached(backbone, two_adapters(backbone), None, 0.0, options.get("how", Concat())) as attachment:
        return values(attachment)


def test_settings_out_of_range_are_refused() -> None:
    for given, message in (
        ({"average": "mean"}, r"tuning\.average: must be one of none, ema, uniform \(got 'mean'\)"),
        ({"average_decay": 1.0}, r"tuning\.average_decay: must be in \(0, 1\) \(got 1\.0\)"),
        ({"average_from": 1.0}, r"tuning\.average_from: must be in \[0, 1\) \(got 1\.0\)"),
    ):
        with pytest.raises(InputError, match=message):
            Tuning(**given)  # pyright: ignore[reportArgumentType]


def test_an_average_that_is_not_made_changes_no_fingerprint() -> None:
    """Adapters in the cache are found by it."""
    assert not any("average" in name for name in Tuning().shaping())
    assert Tuning().shaping() == Tuning(average_decay=0.5).shaping()
    assert EMA.shaping() != UNIFORM.shaping()
    assert EMA.shaping() != dataclasses.replace(EMA, average_decay=0.8).shaping()
