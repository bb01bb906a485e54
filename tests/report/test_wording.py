from __future__ import annotations

import dataclasses

import pytest

from pomona.comparison import Comparison
from pomona.report.wording import (
    MINUS,
    NBSP,
    duration,
    listed,
    may_be_chance,
    moment,
    p_equals,
    p_value,
    percent_span,
    score,
    signed,
    span,
    system_label,
    trial_ratio,
    verdict,
)
from pomona.runs.record import RunRecord


def compared(low: float, high: float, metric: str = "rouge_l") -> Comparison:
    return Comparison(
        system="pomona", baseline="zero_shot", metric=metric, difference=(low + high) / 2, low=low, high=high, p_value=0.5, n=10
    )


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("rouge_l", 0.5, 2.0, "better"),
        ("rouge_l", -2.0, -0.5, "worse"),
        ("rouge_l", -0.5, 0.5, "not significant"),
        ("rouge_l", 0.0, 2.0, "not significant"),
        ("rouge_l", -2.0, 0.0, "not significant"),
        ("rouge_l", 2.0, 2.0, "not significant"),
        ("loss", 0.01, 0.2, "worse"),
        ("loss", -0.2, -0.01, "better"),
    ],
)
def test_verdict_follows_the_interval_and_the_metrics_direction(metric: str, low: float, high: float, expected: str):
    assert verdict(compared(low, high, metric)) == expected


def test_numbers():
    assert score("rouge_l", 27.149) == "27.1"
    assert score("loss", 3.2) == "3.200"
    assert signed("rouge_l", 1.25) == "+1.2"
    assert signed("rouge_l", -1.26) == f"{MINUS}1.3"
    assert signed("rouge_l", 0.0) == "0.0"
    assert percent_span(0.21, 0.464) == "21 to 46%"
    assert p_value(0.0004) == f"<{NBSP}0.001"
    assert p_value(0.0312) == "0.031"
    assert [p_equals(0.0312), p_equals(0.0004)] == ["p = 0.031", f"p <{NBSP}0.001"]


@pytest.mark.parametrize(
    ("low", "high", "p_holm", "expected"),
    [
        (0.5, 2.0, 0.0501, True),
        (-2.0, -0.5, 0.3, True),
        (0.5, 2.0, 0.05, False),
        (0.5, 2.0, None, False),
        (-0.5, 2.0, 0.3, False),
    ],
)
def test_only_a_claim_can_be_chance(low: float, high: float, p_holm: float | None, expected: bool):
    assert may_be_chance(dataclasses.replace(compared(low, high), p_holm=p_holm)) is expected


def test_a_bound_that_is_not_zero_never_shows_as_zero():
    assert span("rouge_l", 0.03, 2.0) == "0.03 to 2.00"
    assert span("rouge_l", -0.004, 2.0) == f"{MINUS}0.004 to 2.000"
    assert span("rouge_l", 0.0, 2.0) == "0.0 to 2.0"
    assert span("rouge_l", 3.0, 3.0) == "unknown"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.12, "0.1 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (598.4, "9 min 58 s"), (3599.6, "1 h 00 min"), (7384, "2 h 03 min")],
)
def test_duration(seconds: float, expected: str):
    assert duration(seconds).replace(NBSP, " ") == expected


def test_words():
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert moment("2026-11-21T22:10:04+00:00") == "2026-11-21 22:10"
    assert moment("yesterday") == "yesterday"


@pytest.mark.parametrize(
    ("system", "ratio"),
    [("pomona_0.3", 0.3), ("pomona_1e-05", 1e-5), ("pomona_0", 0.0), ("pomona", None), ("pomona_search", None), ("lora_0.3", None)],
)
def test_a_run_at_one_ratio_of_several(system: str, ratio: float | None):
    assert trial_ratio(system) == ratio


def test_labels_of_systems(record: RunRecord):
    assert [system_label(record, name) for name in ("pomona", "pomona_0.125", "pomona_search", "of_mine")] == [
        *("Pomona", "Pomona at 12.5%", "pomona search", "of mine"),
    ]
