from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.merging.sign_election import Majority, elected_mean, weighted_sum


def test_weighted_sum_by_hand() -> None:
    parts = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]]), torch.tensor([[0.0, 4.0]])]
    assert weighted_sum(iter(parts), [1.0, -2.0, 0.25]).tolist() == [[-5.0, -2.0]]
    assert [part.tolist() for part in parts] == [[[1.0, -2.0]], [[3.0, 0.5]], [[0.0, 4.0]]]


@pytest.mark.parametrize(
    ("majority", "expected"),
    [
        # column 1: 5 - 1 - 2 > 0, so the 5 alone; by count two of three are negative, so the mean of -1 and -2.
        # column 2: 1 - 1 = 0 counts as +, both ways. column 3: the mean of 2 and 4; the zero does not count.
        # column 4: nothing. column 5: -3 and -1 against 1, both ways.
        ("total", [[5.0, 1.0, 3.0, 0.0, -2.0]]),
        ("frequency", [[-1.5, 1.0, 3.0, 0.0, -2.0]]),
    ],
)
def test_elected_mean_by_hand(majority: Majority, expected: list[list[float]]) -> None:
    rows = [[5.0, 1.0, 2.0, 0.0, -3.0], [-1.0, -1.0, 4.0, 0.0, 1.0], [-2.0, 0.0, 0.0, 0.0, -1.0]]
    parts = [torch.tensor([row]) for row in rows]
    assert elected_mean(iter(parts), [1.0] * 3, majority).tolist() == expected
    assert [part.tolist() for part in parts] == [[row] for row in rows]


def test_weights_do_not_vote() -> None:
    parts = [torch.tensor([[3.0]]), torch.tensor([[-1.0]])]
    assert elected_mean(parts, [-0.5, 100.0], "total").tolist() == [[-1.5]]


def elected_entry(values: Sequence[float], weights: Sequence[float], majority: Majority) -> float:
    """The definition for one entry."""
    votes = sum(values) if majority == "total" else sum((value > 0) - (value < 0) for value in values)
    agreeing = [w * v for v, w in zip(values, weights, strict=True) if (v > 0 if votes >= 0 else v < 0)]
    return sum(agreeing) / len(agreeing) if agreeing else 0.0


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(-4, 4), min_size=6, max_size=6), min_size=1, max_size=5),
    weights=st.lists(st.integers(-3, 3), min_size=5, max_size=5),
    majority=st.sampled_from(["total", "frequency"]),
)
def test_elected_mean_is_its_definition_entry_by_entry(values: list[list[int]], weights: list[int], majority: Majority) -> None:
    parts = [torch.tensor(row, dtype=torch.float32).view(2, 3) for row in values]
    given_weights = [float(weight) for weight in weights[: len(parts)]]
    got = elected_mean(parts, given_weights, majority).flatten().tolist()
    expected = [elected_entry([row[place] for row in values], given_weights, majority) for place in range(6)]
    assert got == pytest.approx(expected, abs=1e-6)
