"""The choice among epochs or trainings by score and loss: cases by hand, and its laws."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tuning.runs import DATA, TUNING, events, script_dev_losses, train

from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.tuning.choice import Judged, ranked
from pomona.tuning.settings import Event

# Paired differences to the first: 2, 0, 4 (mean 2, deviation 2, standard error 2 / sqrt 3 = 1.155) and 1, 1, 1 (mean 1, error 0).
BEST, NOISY, SURE = Judged((6.0, 4.0, 8.0), 3.0), Judged((4.0, 4.0, 4.0), 1.0), Judged((5.0, 3.0, 7.0), 2.0)


@pytest.mark.parametrize(
    ("candidates", "tolerance", "expected"),
    [
        ([BEST, NOISY, SURE], 0.0, [0]),
        ([NOISY, BEST, SURE], 0.0, [1]),
        ([BEST, BEST], 0.0, [0]),  # of equals the first
        ([BEST, NOISY], 1.7, [0, 1]),  # 2 is above 1.7 errors, 1.963
        ([BEST, NOISY], 1.8, [1, 0]),  # and below 1.8, 2.078
        ([BEST, NOISY, SURE], 1.8, [1, 0, 2]),
        ([BEST, SURE], 100.0, [0, 1]),  # lower on every example by the same: no error
        ([BEST, Judged(SURE.scores, 3.0)], 1.0, [0]),  # no better in anything
        ([Judged(SURE.scores, 3.0), BEST], 1.0, [1]),
        ([BEST, Judged((4.0, 4.0, 4.0), 3.0), NOISY], 2.0, [2, 0]),
        ([SURE, SURE, SURE], 1.0, [0]),
        ([Judged((1.0,), 1.0), Judged((2.0,), 2.0)], 5.0, [1, 0]),  # one example has no deviation
        ([Judged((2.0,), 1.0), Judged((2.0,), 2.0)], 5.0, [0]),
    ],
)
def test_cases_by_hand(candidates: list[Judged], tolerance: float, expected: list[int]) -> None:
    assert ranked(candidates, tolerance) == expected


judged = st.builds(Judged, st.tuples(*[st.integers(0, 3).map(float)] * 4), st.integers(0, 3).map(float))


@settings(max_examples=60, deadline=None)
@given(st.lists(judged, min_size=1, max_size=5), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_epoch_by_epoch_the_same_is_chosen_as_from_all_at_once(candidates: list[Judged], tolerance: float) -> None:
    kept: list[int] = []
    for place in range(len(candidates)):
        known = sorted([*kept, place])
        kept = [known[one] for one in ranked([candidates[one] for one in known], tolerance)]
    assert kept[0] == ranked(candidates, tolerance)[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(judged, min_size=1, max_size=4, unique_by=lambda one: (one.mean, one.loss)), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_order_has_no_part_in_it(candidates: list[Judged], tolerance: float) -> None:
    found = [order[ranked(order, tolerance)[0]] for order in map(list, itertools.permutations(candidates))]
    assert len({(one.mean, one.loss) for one in found}) == 1


def scripted(scores: list[tuple[float, float, float]]) -> Any:
    given = iter(scores)
    return lambda attachment: list(next(given))


def test_the_loss_chooses_among_epochs_within_the_tolerance(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third epoch becomes the best by score: then the second, which is near it, replaces the first."""
    scores = [(0.0, 0.0, 0.0), (4.0, 4.0, 4.0), (6.0, 4.0, 8.0), (4.0, 4.0, 4.0)]
    kept: list[list[int]] = []
    for tolerance in (0.0, 1.8, 1.7):
        at_epoch: list[dict[str, torch.Tensor]] = []
        attachments: list[Attachment] = []

        def look(
            event: Event, attachment: Attachment, at_epoch: list[Any] = at_epoch, attachments: list[Any] = attachments
        ) -> None:
            attachments[:] = [attachment]
            if event["kind"] == "epoch":
                at_epoch.append({name: value.detach().clone() for name, value in attachment.parameters().items()})

        script_dev_losses(monkeypatch, [0.5, 1.0, 3.0, 2.0])
        fitted = train(llama, judge=scripted(scores), tolerance=tolerance, look=look)
        kept.append([event.get("kept_epoch", 0) for event in events(fitted, "epoch")])
        assert fitted.epoch == {0.0: 3, 1.8: 2, 1.7: 3}[tolerance]
        assert fitted.dev_loss == {0.0: 3.0, 1.8: 1.0, 1.7: 3.0}[tolerance]
        exported = attachments[0].parameters()
        assert all(torch.equal(exported[name], value) for name, value in at_epoch[fitted.epoch - 1].items())
    assert kept == [[0, 0, 0, 0], [1, 2, 2, 2], [1, 2, 3, 3]]


def test_without_a_dev_set_the_last_epoch_is_kept(llama: Backbone) -> None:
    fitted = train(llama, dataclasses.replace(DATA, dev=[]), dataclasses.replace(TUNING, epochs=2), tolerance=1.0)
    assert fitted.epoch == 2
