"""Dynamic pruning with feedback under a given or settled ratio (Lin et al., arXiv 2006.07253)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from tests.tuning.runs import DATA, STEPS, TUNING, quota, train
from tests.tuning.test_live_masks import Table
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Linear
from pomona.control import Controller, Fixed, Grasp
from pomona.errors import InputError
from pomona.importance import Magnitude
from pomona.tuning.prune import Prune
from pomona.tuning.settings import Event, Pruning

ALWAYS = Pruning(Magnitude(), feedback="always")
HIGH = dataclasses.replace(TUNING, learning_rate=0.05)  # masks move from step to step


def lowest(dense: Tensor, prune_ratio: float) -> Tensor:
    """The mask of the entries with the smallest size."""
    order = dense.abs().flatten().argsort(stable=True)
    mask = torch.zeros(dense.numel(), dtype=torch.bool)
    mask[order[: math.floor(round(prune_ratio * dense.numel(), 9))]] = True
    return mask.view_as(dense)


@pytest.mark.parametrize("reset", ["zero", "initial"])
@pytest.mark.parametrize("interval_steps", [1, 3])
def test_the_dense_weights_are_trained_by_the_gradients_of_the_pruned_model(reset: Any, interval_steps: int) -> None:
    """An AdamW of its own on dense weights, whose lowest entries are masked every few steps. Each is an A and a B."""
    A, B = (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) for shape in ((3, 4), (5, 3)))
    table = Table(A, B, pruning=dataclasses.replace(ALWAYS, reset=reset), steps=0)
    dense = [torch.nn.Parameter(one.clone()) for one in (A, B)]
    optimizer = torch.optim.AdamW(dense, lr=0.5, weight_decay=0.0)
    masks = [torch.zeros_like(one, dtype=torch.bool) for one in (A, B)]
    revived = 0
    for step in range(1, 10):
        for own, theirs, target in zip((table.A, table.B), dense, (A, B), strict=True):
            gradient = own.detach() - 0.3 * step * target.flip(0)  # of a square, at the pruned weights
            own.grad, theirs.grad = gradient.clone(), gradient.clone()
        table.optimizer.step()
        optimizer.step()
        due = step % interval_steps == 0
        table.live.feed_back(0.4 if due else None)
        if due:
            before, masks = masks, [lowest(one.detach(), 0.4) for one in dense]
            revived += sum(int((old & ~new).sum()) for old, new in zip(before, masks, strict=True))
        for name, own, theirs, mask, start in zip("AB", (table.A, table.B), dense, masks, (A, B), strict=True):
            rest = start if reset == "initial" else torch.zeros_like(start)
            torch.testing.assert_close(own.detach(), torch.where(mask, rest, theirs.detach()), atol=1e-5, rtol=0)
            assert torch.equal(own[mask], rest[mask])
            torch.testing.assert_close(table.live.unpruned()[f"m.{name}"], theirs.detach(), atol=1e-5, rtol=0)
    assert revived >= 3, "masks moved"


KINDS: dict[str, tuple[Controller, dict[str, Any], int]] = {
    "fixed": (Fixed(0.5), {}, 1),
    "at intervals": (Fixed(0.5), {"pruning": dataclasses.replace(ALWAYS, interval_steps=3)}, 2),
    "groups": (Fixed((0.25, 0.75)), {}, 1),
    "searched": (Grasp(interval_steps=1, commit_level=0, settle_fraction=0.4), {}, 4),
    "published search": (
        Grasp(interval_steps=1, commit_level=0, settle_fraction=0.4, published=("importance_once", "no_feedback")), {}, 4
    ),
}  # fmt: skip
"""Kind -> controller, options, and the first step after which the exported ratio is in force: of 8 steps, 2 an epoch."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_is_exact_and_pruned_entries_are_trained(llama: Backbone, kind: str) -> None:
    controller, given, first = KINDS[kind]
    options: dict[str, Any] = {"pruning": ALWAYS} | given
    trained: list[bool] = []
    put_masks = Prune.put_masks

    def spy(prune: Prune, step: int, *, last_of_epoch: bool) -> None:
        before = prune.unpruned()
        put_masks(prune, step, last_of_epoch=last_of_epoch)
        pruned = {name: value == 0 for name, value in prune.masked(before).items()}
        after = prune.unpruned()
        if step > first:
            trained.append(any(bool((after[name] != before[name])[mask].any()) for name, mask in pruned.items()))

    def look(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "step" and int(str(event["step"])) >= first:
            for name, one in attachment.parameters().items():
                ratios = controller.prune_ratio if isinstance(controller, Fixed) else event["prune_ratio"]
                assert isinstance(ratios, float | tuple)
                ratio = ratios if isinstance(ratios, float) else ratios[int(".layers.1." in name)]
                assert int((one == 0).sum()) == quota(ratio, one.numel()), (event["step"], name)

    with mock.patch.object(Prune, "put_masks", spy):
        fitted = train(llama, tuning=HIGH, controller=controller, look=look, **options)
    assert trained == [True] * (STEPS - first)
    plain = train(llama, tuning=HIGH, controller=controller, pruning=dataclasses.replace(ALWAYS, feedback="search"))
    assert fitted.adapter.fingerprint() != plain.adapter.fingerprint()


@pytest.mark.parametrize("feedback", ["search", "never"])
def test_otherwise_a_given_ratio_prunes_and_retrains(llama: Backbone, feedback: Any) -> None:
    """The same run bit for bit."""
    found = train(llama, tuning=HIGH, controller=Fixed(0.5), pruning=Pruning(feedback=feedback))
    assert found.adapter.fingerprint() == train(llama, tuning=HIGH, controller=Fixed(0.5), pruning=Pruning()).adapter.fingerprint()


@pytest.mark.parametrize("how", [None, Linear()], ids=["concat", "sum"])
def test_the_average_is_that_of_the_dense_weights(llama: Backbone, how: Any) -> None:
    dense: list[dict[str, Tensor]] = []
    put_masks: Callable[..., None] = Prune.put_masks
    attachments: list[Attachment] = []

    def spy(prune: Prune, step: int, *, last_of_epoch: bool) -> None:
        put_masks(prune, step, last_of_epoch=last_of_epoch)
        dense.append({name: value.double() for name, value in prune.unpruned().items()})
        masks.append({name: value == 0 for name, value in prune.masked(prune.unpruned()).items()})

    masks: list[dict[str, Tensor]] = []
    averaged = dataclasses.replace(HIGH, average="uniform")
    with mock.patch.object(Prune, "put_masks", spy):
        train(
            llama,
            dataclasses.replace(DATA, dev=[]),
            averaged,
            how=how,
            look=lambda event, attachment: attachments.append(attachment),
            pruning=ALWAYS,
            controller=Fixed(0.5),
        )
    for name, parameter in attachments[-1].parameters().items():
        mean = torch.stack([one[name] for one in dense[STEPS // 2 :]]).mean(0)
        expected = torch.where(masks[-1][name], 0.0, mean)
        torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=1e-5)


def test_a_mask_that_never_changes_needs_no_feedback() -> None:
    with pytest.raises(InputError, match=r"pruning\.feedback: with schedule `once` the mask never changes.*\(got 'always'\)"):
        Pruning(feedback="always", schedule="once")
    with pytest.raises(InputError, match=r"pruning\.feedback: must be one of search, always, never \(got 'on'\)"):
        Pruning(feedback="on")  # pyright: ignore[reportArgumentType]
