from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.metrics.text import check_word_tokenizer, is_unspaced, primary_language, word_tokenizer_name, words, words_by


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The cat's 2 mats -- café", "en", "the cat s 2 mats caf"),
        ("الجمعية الأوروبية (TUMAS)، ٢٠١٢؟", "ar", "الجمعية الأوروبية tumas ٢٠١٢"),
        ("مُحَمَّد", "ar", "مُحَمَّد"),
        ("ﻛﺘﺎﺏ كتـاب آب", "ar", "كتاب كتـاب آب"),
        ("ABC在2012年，ok", "zh", "abc 在 2012 年 ok"),
        ("ＡＢＣ ﾃﾞｰﾀを", "ja", "abc デ ー タ を"),
        ("서울은 한국의 수도이다.", "ko", "서울은 한국의 수도이다"),
        ("Mji mkuu ni Nairobi!", "sw", "mji mkuu ni nairobi"),
        ("हिन्दी भाषा", "hi", "हिन्दी भाषा"),
        ("กข ค", "th", "ก ข ค"),
        ("見る the 山", "de", "見 る the 山"),
        ("Straße", "de", "strasse"),
        ("", "zh-hant", ""),
        ("?! 👍", "en", "?! 👍"),
        ("?! ok", "en", "ok"),
        ("。。。", "zh", "。。。"),
    ],
)
def test_words(text: str, language: str, expected: str) -> None:
    assert words(text, language) == tuple(expected.split())


@pytest.mark.parametrize(
    ("text", "language", "tokenizer", "expected"),
    [
        ("The café's 3.5", "en", "words", "the café s 3 5"),
        ("Ab, c1", "en", "characters", "a b c 1"),
        ("ＡＢ，清华", "zh", "characters", "a b 清 华"),
        ("مَا", "ar", "characters", "م َ ا"),
        ("我来到北京清华大学，OK。", "zh", "words", "我 来到 北京 清华大学 ok"),
        ("東京タワーは「ABC」だ。", "ja", "words", "東京 タワー は abc だ"),
        ("서울은 크다.", "ko", "words", "서울은 크다"),
        ("!!", "ja", "words", "!!"),
    ],
)
def test_words_by_another_tokenizer(text: str, language: str, tokenizer: str, expected: str) -> None:
    assert words_by(text, language, tokenizer) == tuple(expected.split())


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters()), st.sampled_from(["en", "ar", "zh"]))
def test_only_blank_text_has_no_words(text: str, language: str) -> None:
    for tokenizer in ("auto", "characters"):
        assert bool(words_by(text, language, tokenizer)) == bool(text.strip())


def test_long_text_is_cut_as_short_text_is() -> None:
    text = "ﻛﺘﺎﺏ 2012年の データ e\u0301t\u00e9 ½ "
    assert words(text * 400, "ar") == words(text, "ar") * 400


def test_a_run_of_combining_marks_takes_no_quadratic_time() -> None:
    started = time.perf_counter()
    (word,) = words("a" + "\u0315\u0300" * 100_000, "ar")
    assert time.perf_counter() - started < 5
    assert len(word) == 200_000
    assert set(word) == {"\u00e0", "\u0300", "\u0315"}


def test_languages_by_their_primary_part() -> None:
    assert [primary_language(tag) for tag in ("en", "zh-hant", "sw-KE")] == ["en", "zh", "sw"]


def test_scripts_without_spaces() -> None:
    assert [char for char in "a1ا한山のカー。ก𠀀" if is_unspaced(char)] == list("山のカーก𠀀")


def test_names_of_what_cuts() -> None:
    unicode = f"unicode-{unicodedata.unidata_version}"
    assert word_tokenizer_name("auto", "en") == "a-z0-9"
    assert word_tokenizer_name("auto", "zh") == word_tokenizer_name("words", "en") == unicode
    assert word_tokenizer_name("characters", "en") == f"characters-{unicode}"
    assert word_tokenizer_name("words", "zh-hant").startswith("jieba-")


@pytest.mark.parametrize("tag", ["", "english", "EN", "e", "en_US", "3"])
def test_what_is_not_a_tag_is_refused(tag: str) -> None:
    with pytest.raises(InputError, match=r"^language: not a language tag"):
        primary_language(tag)


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match=r"^tokenizer: no such tokenizer \(got 'word'\)\. Did you mean 'words'\? Known: auto, "):
        check_word_tokenizer("word", "en")
