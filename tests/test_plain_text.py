"""Text that acts on no terminal."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.plain_text import is_plain, visible


def test_what_acts_on_a_terminal_is_written_as_its_escape() -> None:
    assert visible("\x1b[2J\x9b31m\u202eabc\u2066\ufeff\udcff") == r"\u001b[2J\u009b31m\u202eabc\u2066\ufeff\udcff"
    assert visible("a\tb\nc\rd") == r"a\u0009b\u000ac\u000dd"
    assert visible("a\tb\nc\rd", lines=True) == "a\tb\nc\\u000dd"
    assert visible("\U000e0041") == r"\udb40\udc41"


def test_the_letters_of_all_languages_stay() -> None:
    text = "Größe, 日本語, العربية, क्षत्रिय, نمی‌خواهم, 👩‍👩‍👧, שלום"
    assert visible(text) == text
    assert is_plain(text)


@given(st.text())
def test_within_json_the_text_is_the_same_after_reading(text: str) -> None:
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text
    assert is_plain(visible(text))


def test_errors_are_shown_so() -> None:
    error = InputError("the class \x1b]0;owned\x07", file="a\u202eb", field="x\x9b", fix="Look at \x1b[0m")
    assert str(error) == r"a\u202eb: x\u009b: the class \u001b]0;owned\u0007. Look at \u001b[0m."
