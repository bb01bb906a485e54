from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.data import near
from pomona.data.content import normalised
from pomona.data.near import near_duplicates


def brute(texts: list[str], share: float, boilerplate: int) -> list[tuple[int, int, float]]:
    """The definition, with sets of strings and every pair."""
    contents = [normalised(text) for text in texts]
    runs = [{one[start : start + 24] for start in range(len(one) - 23)} for one in contents]
    distinct = [index for index, one in enumerate(contents) if one not in contents[:index]]
    everywhere = {run for run in set().union(*runs) if sum(run in runs[index] for index in distinct) > boilerplate}
    runs = [one - everywhere for one in runs]
    found = [(contents.index(one), index, 1.0) for index, one in enumerate(contents) if one in contents[:index]]
    for first, second in combinations(distinct, 2):
        common, smaller = len(runs[first] & runs[second]), min(len(runs[first]), len(runs[second]))
        if common > share * smaller:
            found.append((first, second, common / smaller))
    return sorted(found)


PIECES = st.sampled_from(
    ["the pear tree bears fruit in autumn ", "梨の木は秋に実をつける。", "\u0634\u062c\u0631\u0629 ", "a\u0301", "\0", "X 7\u2028"]
)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(st.lists(PIECES | st.text(max_size=6), max_size=6).map("".join), max_size=9),
    share=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    boilerplate=st.sampled_from([2, 3, 100]),
)
def test_pairs_are_those_of_the_definition(texts: list[str], share: float, boilerplate: int) -> None:
    assert near_duplicates(texts, share, boilerplate) == brute(texts, share, boilerplate)


def test_parts_of_the_hashes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    pieces = ["".join(draw.choices("abcde ", k=40)) for _ in range(12)]
    texts = ["".join(draw.choices(pieces, k=4)) for _ in range(60)]
    whole = near_duplicates(texts, 0.5, 20)
    monkeypatch.setattr(near, "_POSTINGS_AT_ONCE", 100)
    assert near_duplicates(texts, 0.5, 20) == whole == brute(texts, 0.5, 20)
    assert len(whole) > 20


def test_more_than_the_share_of_the_shorter_text_is_needed() -> None:
    # 64 characters have 41 runs and 100 have 77; 44 shared characters have 21 runs: over half of 41. 43 have 20: under.
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
    for shared, expected in ((44, [(0, 1, 21 / 41)]), (43, [])):
        short, long = letters[:64], letters[:shared] + letters[100 : 200 - shared]
        assert (len(short), len(long)) == (64, 100)
        assert near_duplicates([short, long]) == expected
    # 63 characters have 40 runs; 43 shared ones have 20, exactly half.
    assert near_duplicates([letters[:63], letters[:43] + letters[100:157]]) == []


def test_case_width_and_spaces_do_not_matter_and_equal_texts_meet_at_the_first() -> None:
    text = "The pear tree bears its fruit in late autumn."
    assert near_duplicates([text, "short", text.upper(), "Other words, of which none is shared.", "SHORT", f" {text}\n"]) == [
        (0, 2, 1.0),
        (0, 5, 1.0),
        (1, 4, 1.0),
    ]


def test_texts_under_24_characters_are_near_to_equal_ones_only() -> None:
    assert near_duplicates(["x" * 23, "x" * 22, "x" * 24, "x" * 25]) == [(2, 3, 1.0)]


def test_what_stands_in_more_texts_than_the_limit_is_boilerplate() -> None:
    own = ["".join(chr(0x4E00 + 60 * n + k) for k in range(60)) for n in range(101)]
    licence = "Redistribution and use in source and binary forms, with or without modification, are permitted."
    framed = [licence + one for one in own]
    assert near_duplicates(framed) == []
    assert len(near_duplicates(framed[:100])) == 100 * 99 // 2
    # A copy is found by what is its own.
    assert [pair[:2] for pair in near_duplicates([*framed, framed[7][:-10] + "another end"])] == [(7, 101)]


def test_no_texts_have_no_pairs() -> None:
    assert near_duplicates([]) == near_duplicates([""]) == near_duplicates(["", "a"]) == []
    assert near_duplicates(["", " "]) == [(0, 1, 1.0)]
