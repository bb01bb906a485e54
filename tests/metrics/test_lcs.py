"""Longest common subsequences against the table of the textbook, and against what rouge-score reads out of its own."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import lcs_ind

from pomona.metrics.lcs import common_length, common_places, positions

SEQUENCES = st.one_of(*(st.lists(st.sampled_from(letters), max_size=40) for letters in ("a", "ab", "abcd", "abcdefghijklmnop")))


def table_length(reference: Sequence[str], prediction: Sequence[str]) -> int:
    table = [[0] * (len(prediction) + 1) for _ in range(len(reference) + 1)]
    for i, theirs in enumerate(reference):
        for j, mine in enumerate(prediction):
            table[i + 1][j + 1] = table[i][j] + 1 if mine == theirs else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, SEQUENCES)
def test_the_length_is_that_of_the_table(reference: list[str], prediction: list[str]) -> None:
    expected = table_length(reference, prediction)
    assert common_length(reference, prediction) == expected
    assert common_length(prediction, reference) == expected


@settings(max_examples=300, deadline=None)
@given(SEQUENCES, SEQUENCES)
def test_the_places_are_those_that_rouge_score_finds(reference: list[str], prediction: list[str]) -> None:
    found = common_places(positions(reference), len(reference), prediction)
    assert [place for place in range(len(reference)) if found >> place & 1] == lcs_ind(reference, prediction)
    assert found.bit_count() == common_length(reference, prediction)


def test_by_hand() -> None:
    assert positions("abca") == {"a": 0b1001, "b": 0b10, "c": 0b100}
    assert common_length("abcbdab", "bdcaba") == 4
    # From the end: a matches; b, c of "abc" are not in "ada"; the first a.
    assert common_places(positions("abca"), 4, "ada") == 0b1001
    assert common_places(positions("abc"), 3, "") == 0
