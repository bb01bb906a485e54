"""Exact match and token F1 by hand, against a plain writing of SQuAD's rules, and against MLQA's published Arabic rule."""

from __future__ import annotations

import json
import random
import re
import string

import pytest
from tests.real_data import DATA

from pomona.errors import InputError
from pomona.metrics import ExactMatch, TokenF1
from pomona.metrics.answers import answer_tokens


def squad_normalised(text: str) -> str:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, reference: str) -> float:
    mine, theirs = squad_normalised(prediction).split(), squad_normalised(reference).split()
    left, shared = list(theirs), 0
    for token in mine:
        if token in left:
            left.remove(token)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(mine), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def agrees_with_squad(prediction: str, references: list[str]) -> None:
    expected = max(squad_f1(prediction, reference) for reference in references)
    assert TokenF1().statistics(prediction, references)[0] == pytest.approx(expected, abs=1e-12)
    equal = any(squad_normalised(prediction) == squad_normalised(reference) for reference in references)
    assert ExactMatch().statistics(prediction, references)[0] == float(equal)


def test_english_equals_squad_s_rules() -> None:
    generator = random.Random(0)
    vocabulary = ["The", "the", "cat", "cat,", "Dog's", "an", "U.S.", "3.5", "mat"]
    for _ in range(300):
        texts = [" ".join(generator.choices(vocabulary, k=generator.randrange(1, 6))) for _ in range(3)]
        if all(map(squad_normalised, texts)):
            agrees_with_squad(texts[0], texts[1:])


@pytest.mark.parametrize("name", ["xquad", "mlqa", "tydiqa_goldp"])
def test_english_equals_squad_s_rules_on_real_answers(name: str) -> None:
    lines = (DATA / name / "en" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    compared = 0
    for line in lines:
        row = json.loads(line)
        first, *_ = references = row["answers"]
        # Where a text has Unicode's punctuation, MLQA's rules drop it and SQuAD's keep it.
        plain = all(ord(character) < 0x2000 or character.isalnum() for text in references for character in text)
        if plain and all(map(squad_normalised, references)):
            for prediction in (first, f"The {first}.", first[: len(first) // 2] + " it", f"{row['question']} {first}"):
                agrees_with_squad(prediction, references)
                compared += 1
    assert compared > 2 * len(lines)


def test_english_differs_from_squad_in_unicode_punctuation_alone() -> None:
    assert (squad_f1("“Cats”", "cats"), squad_f1('"Cats"', "cats")) == (0.0, 1.0)
    assert [TokenF1().statistics(text, ["cats"])[0] for text in ("“Cats”", '"Cats"')] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "exact", "f1"),
    [
        ("en", "the Cat.", "cat", 1.0, 1.0),
        ("en", "black cat", "cat", 0.0, 2 / 3),
        ("en", "cat cat", "cat", 0.0, 2 / 3),
        ("ar", "الكتاب", "كتاب", 1.0, 1.0),
        ("ar", "في الكتاب", "كتاب", 0.0, 2 / 3),
        ("zh", "北京市", "北京", 0.0, 4 / 5),
        ("zh", "《北京》。", "北 京", 1.0, 1.0),
        ("zh", "2012年", "2012 年", 1.0, 1.0),
        ("zh", "2012年", "12年", 0.0, 1 / 2),
        ("ja", "東京タワー", "東京", 0.0, 4 / 7),
        ("ko", "서울 시", "서울", 0.0, 2 / 3),
        ("en", "A", "A", 1.0, 1.0),
        ("en", "?", "A", 0.0, 0.0),
        ("en", "", "the", 0.0, 0.0),
        ("en", " ", "", 0.0, 0.0),
    ],
)
def test_by_hand(language: str, prediction: str, reference: str, exact: float, f1: float) -> None:
    assert ExactMatch(language).statistics(prediction, ["other", reference])[0] == exact
    assert TokenF1(language).statistics(prediction, ["other", reference])[0] == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("The U.S.A. – a “state”!", "en", "usa state"),
        ("theatre an Anna", "en", "theatre anna"),
        ("5$ + 3", "en", "5 3"),
        ("الكتاب، في ٢٠١٢؟", "ar", "كتاب في ٢٠١٢"),
        ("Das Haus der Zeit", "de", "haus zeit"),
        ("la casa del perro", "es", "casa del perro"),
        ("thủ đô của Việt Nam là", "vi", "thủ đô việt nam"),
        ("the Haus", "sw", "the haus"),
        ("2012年，《红楼梦》 by Cao", "zh", "2012 年 红 楼 梦 by cao"),
        ("㐀㐀一カナ龥龦龦", "zh", "㐀㐀 一 カナ 龥 龦龦"),  # MLQA's characters are U+4E00 to U+9FA5
        ("カナ中龥龦龦", "ja", "カ ナ 中 龥 龦 龦"),
        ("「東京タワー」", "ja", "東 京 タ ワ ー"),
        ("東京 tower", "en", "東京 tower"),
        ("The", "en", "the"),
        ("?!", "zh", "?!"),
        ("  ", "en", ""),
    ],
)
def test_answer_tokens(text: str, language: str, expected: str) -> None:
    assert answer_tokens(text, language) == tuple(expected.split())


def test_the_tokens_of_long_texts_are_those_of_short_ones() -> None:
    sentence = "The Cat, 北京; "
    assert answer_tokens(sentence * 500, "en") == answer_tokens(sentence, "en") * 500


def published_arabic(text: str) -> tuple[str, ...]:
    """The Arabic rule of MLQA's published script: wherever the article's letters stand, they make way for a space."""
    text = "".join(character for character in text if character not in string.punctuation + "،؟«»")
    return tuple(" ".join(text.split("ال")).split())


@pytest.mark.parametrize("text", ["والكتاب", "خالد", "الكتاب والقلم", "مقال، «الجمال»", "المال والبنون"])
def test_anywhere_is_mlqa_s_published_rule(text: str) -> None:
    assert answer_tokens(text, "ar", "anywhere") == published_arabic(text)


def test_the_arabic_article_within_a_word_counts_by_the_rule_chosen() -> None:
    assert answer_tokens("خالد", "ar") == ("خالد",)
    assert answer_tokens("خالد", "ar", "anywhere") == ("خ", "د")
    assert ExactMatch("ar").statistics("خ د", ["خالد"])[0] == 0.0
    assert ExactMatch("ar", arabic_article="anywhere").statistics("خ د", ["خالد"])[0] == 1.0
    assert TokenF1("ar", arabic_article="anywhere").statistics("خ", ["خالد"])[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [ExactMatch, TokenF1])
def test_what_is_not_a_rule_is_refused(metric: type[ExactMatch] | type[TokenF1]) -> None:
    with pytest.raises(InputError, match=r"^arabic_article: not a rule for the Arabic article \(got 'start'\)"):
        metric("ar", arabic_article="start")
    with pytest.raises(ValueError, match="without references"):
        metric("ar").statistics("text", [])


def test_signatures_name_what_changes_the_score() -> None:
    assert ExactMatch("zh-hant").signature == "exact_match|rules:mlqa|lang:zh-hant|refs:best"
    assert TokenF1("ar").signature == "token_f1|rules:mlqa|lang:ar|article:word|refs:best"
    assert TokenF1("ar", "anywhere").signature == "token_f1|rules:mlqa|lang:ar|article:anywhere|refs:best"
