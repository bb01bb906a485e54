from __future__ import annotations

import pytest

from pomona.errors import InputError
from pomona.metrics.text import answer_tokens, bleu_tokenizer, primary_language, words


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The cat's 2 mats -- café", "en", "the cat s 2 mats caf"),
        ("الجمعية الأوروبية (TUMAS)، ٢٠١٢؟", "ar", "الجمعية الأوروبية tumas ٢٠١٢"),
        ("مُحَمَّد", "ar", "مُحَمَّد"),
        ("ABC在2012年，ok", "zh", "abc 在 2012 年 ok"),
        ("ＡＢＣ ﾃﾞｰﾀを", "ja", "abc デ ー タ を"),
        ("서울은 한국의 수도이다.", "ko", "서울은 한국의 수도이다"),
        ("Mji mkuu ni Nairobi!", "sw", "mji mkuu ni nairobi"),
        ("हिन्दी भाषा", "hi", "हिन्दी भाषा"),
        ("กข ค", "th", "ก ข ค"),
        ("見る the 山", "de", "見 る the 山"),
        ("Straße", "de", "strasse"),
        ("", "zh-hant", ""),
    ],
)
def test_words(text: str, language: str, expected: str) -> None:
    assert words(text, language) == tuple(expected.split())


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The U.S.A. – a “state”!", "en", "usa state"),
        ("theatre an Anna", "en", "theatre anna"),
        ("5$ + 3", "en", "5 3"),
        ("الكتاب، في ٢٠١٢؟", "ar", "كتاب في ٢٠١٢"),
        ("Das Haus der Zeit", "de", "haus zeit"),
        ("the Haus", "sw", "the haus"),
        ("2012年，《红楼梦》 by Cao", "zh", "2012 年 红 楼 梦 by cao"),
        ("「東京タワー」", "ja", "東 京 タ ワ ー"),
        ("東京 tower", "en", "東京 tower"),
        ("The", "en", "the"),
        ("?!", "zh", "?!"),
        ("  ", "en", ""),
    ],
)
def test_answer_tokens(text: str, language: str, expected: str) -> None:
    assert answer_tokens(text, language) == tuple(expected.split())


def test_languages_by_their_primary_part() -> None:
    assert [primary_language(tag) for tag in ("en", "zh-hant", "sw-KE")] == ["en", "zh", "sw"]
    assert [bleu_tokenizer(tag) for tag in ("en", "ar", "ko", "zh-hant", "ja", "th")] == ["13a", "13a", "13a", "zh", "char", "char"]


@pytest.mark.parametrize("tag", ["", "english", "EN", "e", "en_US", "3"])
def test_what_is_not_a_tag_is_refused(tag: str) -> None:
    with pytest.raises(InputError, match=r"^language: not a language tag"):
        primary_language(tag)
