"""The log: which events come when, and what is read together."""

from __future__ import annotations

import math

import pytest
import torch

from pomona.errors import PomonaError
from pomona.tuning.log import Log
from pomona.tuning.settings import Event


def step(log: Log, number: int, loss: float) -> None:
    log.finite({"training loss": torch.tensor(loss)}, number - 1)
    log.step({"kind": "step", "step": number, "loss": None, "prune_ratio": 0.5}, torch.tensor(loss))


def test_events_wait_for_their_losses_and_keep_their_order() -> None:
    told: list[Event] = []
    log = Log("pomona", told.append, 3)
    step(log, 1, 0.5)
    step(log, 2, 0.25)
    assert told == []
    step(log, 3, 0.125)
    assert told == [
        {"kind": "step", "step": number, "loss": loss, "prune_ratio": 0.5} for number, loss in ((1, 0.5), (2, 0.25), (3, 0.125))
    ]
    assert [list(event) for event in told] == [["kind", "step", "loss", "prune_ratio"]] * 3
    assert log.latest_loss == 0.125
    step(log, 4, 2.0)
    log.tell({"kind": "round"})
    assert [event.get("loss") for event in told[3:]] == [2.0, None]


def test_on_a_cpu_nothing_waits() -> None:
    told: list[Event] = []
    log = Log.on(torch.device("cpu"), "pomona", told.append)
    for number in (1, 2):
        step(log, number, 1.0)
        assert len(told) == number
    with pytest.raises(PomonaError, match=r"^the training loss of pomona is not finite after 2 steps \(got nan\)\. Lower"):
        log.finite({"training loss": torch.tensor(math.nan), "training gradient": torch.tensor(math.inf)}, 2)


def test_a_value_that_is_not_finite_is_named_with_its_step_and_ends_the_events() -> None:
    told: list[Event] = []
    log = Log("pomona", told.append, 10)
    for number, loss in enumerate((1.0, math.inf, 2.0), start=1):
        step(log, number, loss)
    with pytest.raises(PomonaError, match=r"^the training loss of pomona is not finite after 1 steps \(got inf\)\. Lower"):
        log.read()
    assert [event["step"] for event in told] == [1]
