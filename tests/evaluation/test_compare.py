"""Paired comparisons between systems."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from pomona.comparison import Comparison
from pomona.data import Example
from pomona.evaluation.answers import Answers
from pomona.evaluation.compare import compare
from pomona.evaluation.scores import LOSS, make_metrics, score

EXAMPLES = tuple(Example(str(n), "p", " t", (f"word{n} tail",), str(n)) for n in range(12))
RIGHT = tuple(one.references[0] for one in EXAMPLES)
CHOSEN = make_metrics(("exact_match", "rouge_1"), "en")
SYSTEMS = {
    "ours": Answers(RIGHT, tuple(1.0 + 0.01 * n for n in range(12)), 0.0),
    "same": Answers(RIGHT, tuple(1.0 + 0.01 * n for n in range(12)), 0.0),
    "half": Answers(
        tuple(text if n % 2 else "none" for n, text in enumerate(RIGHT)), tuple(1.5 + 0.01 * n for n in range(12)), 0.0
    ),
}
SCORES = {name: score(given, EXAMPLES, CHOSEN, draws=200, seed=0) for name, given in SYSTEMS.items()}


def compared(system: str, against: list[str], seed: int = 0, groups: list[str] | None = None) -> dict[tuple[str, str], Comparison]:
    found = compare(system, against, SCORES, CHOSEN, groups=groups, draws=500, seed=seed)
    assert all(one.system == system for one in found)
    return {(one.baseline, one.metric): one for one in found}


def test_every_metric_and_the_loss_against_every_other() -> None:
    found = compared("ours", ["same", "half"])
    assert list(found) == [(baseline, metric) for baseline in ("same", "half") for metric in ("exact_match", "rouge_1", LOSS)]


def test_differences_by_hand() -> None:
    found = compared("ours", ["half"])
    assert found["half", "exact_match"].difference == pytest.approx(50.0, abs=1e-9)
    assert found["half", "exact_match"].low > 0
    # Every example differs by exactly -0.5, so every draw does.
    loss = found["half", LOSS]
    assert (loss.difference, loss.low, loss.high) == pytest.approx((-0.5, -0.5, -0.5), abs=1e-12)
    # A sign flip of all 12 pairs happens in 2 of 2^12 exchanges: only then is the difference as large.
    assert loss.p_value < 0.01


def test_the_other_way_round_is_the_negative() -> None:
    there, back = compared("ours", ["half"])["half", "rouge_1"], compared("half", ["ours"])["ours", "rouge_1"]
    assert back.difference == pytest.approx(-there.difference, abs=1e-9)


def test_equal_systems_do_not_differ() -> None:
    for one in compared("ours", ["same"]).values():
        assert (one.difference, one.low, one.high, one.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_seed_and_order_of_systems() -> None:
    assert compared("ours", ["half"]) == compared("ours", ["half"])
    assert compared("ours", ["same", "half"])["half", "rouge_1"] == compared("ours", ["half"])["half", "rouge_1"]
    several = [compared("ours", ["half"], seed=seed)["half", "rouge_1"] for seed in range(6)]
    assert len({one.difference for one in several}) == 1
    assert len({(one.low, one.high, one.p_value) for one in several}) > 1


def test_groups_count_as_one() -> None:
    """Twelve examples of two documents are two observations: no exchange of two can be rare."""
    grouped = compared("ours", ["half"], groups=["a"] * 6 + ["b"] * 6)["half", LOSS]
    assert grouped.p_value > 0.3
    assert np.isclose(grouped.difference, -0.5)


def test_no_system_to_compare_with() -> None:
    arguments: dict[str, Any] = {"groups": None, "draws": 10, "seed": 0}
    assert compare("ours", [], SCORES, CHOSEN, **arguments) == []
    assert set(arguments) <= set(inspect.signature(compare).parameters)
