from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.metrics.holm import holm

P_VALUES = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.3, 1.0]) | st.floats(0, 1), max_size=8)


def rejected(p_values: list[float], alpha: float) -> set[int]:
    """The procedure as Holm tells it: the smallest against alpha / m, the next against alpha / (m - 1), until one is not below."""
    left, out = sorted(range(len(p_values)), key=lambda index: p_values[index]), set[int]()
    while left and Fraction(p_values[left[0]]) * len(left) <= Fraction(alpha):
        out.add(left.pop(0))
    return out


def test_by_hand() -> None:
    # In order 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@settings(max_examples=150, deadline=None)
@given(P_VALUES, st.floats(0.001, 0.5))
def test_what_is_at_most_alpha_is_what_the_procedure_rejects(p_values: list[float], alpha: float) -> None:
    adjusted = holm(p_values)
    exact = rejected(p_values, alpha)
    for index, value in enumerate(adjusted):
        if abs(value - alpha) > 1e-12:
            assert (value <= alpha) == (index in exact)


@settings(max_examples=100, deadline=None)
@given(P_VALUES, st.permutations(range(8)))
def test_laws(p_values: list[float], order: list[int]) -> None:
    adjusted = holm(p_values)
    assert all(own <= value <= 1.0 for own, value in zip(p_values, adjusted, strict=True))
    # A smaller p-value never has the larger adjusted one, and equal ones have equal ones.
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [value for _, value in pairs] == sorted(adjusted)
    assert len(dict(pairs)) == len(set(pairs))
    if p_values:
        assert adjusted[p_values.index(min(p_values))] == min(1.0, len(p_values) * min(p_values))
    # The order of the tests changes nothing.
    picks = [index for index in order if index < len(p_values)]
    assert holm([p_values[index] for index in picks]) == [adjusted[index] for index in picks]


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan")])
def test_what_is_not_a_p_value_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"p-values must be in \[0, 1\], not"):
        holm([0.5, wrong])
