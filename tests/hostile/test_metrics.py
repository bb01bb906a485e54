"""Text that nobody would write, in every registered metric and six languages: a finite score in [0, 100], in bounded time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_encoder import save_tiny_encoder

from pomona.metrics import BertScore, Bleu, Metric, Rouge2, describe_answers, metrics
from pomona.metrics.encoder import load_encoder
from pomona.metrics.text import words_by

LANGUAGES = ("en", "ar", "zh", "ja", "ko", "sw")
STRING_METRICS = sorted(set(metrics) - {"bert_score"})
MEGABYTE = 1_000_000
LONG = MEGABYTE // 3
SECONDS = 30
"""Far above what is measured (a second or two), far below what a quadratic table in Python would take of `LONG` characters."""

ODD = {
    "control characters": "a\x00b\x1b[31m\x7f\x85\u2028c d\x1fe f",
    "NUL alone": "\x00",
    "lone surrogate": "\ud800",
    "lone surrogates among words": "one \ud800 two \udfff three 山\udc00川",
    "right to left": "\u202eabc\u200f \u0627\u0644\u0643\u062a\u0627\u0628 \u202c",
    "zero width": "\u200b\u200c\u200d\ufeff",
    "zero width in a word": "te\u200bxt te\u00adxt te\u2060xt text",
    "unpaired marks": "\u0301\u0e31\u200d\ufe0f",
    "combining sequences": "e\u0301\u0323\u0327 \u1112\u1161\u11ab a" + "\u0300" * 500,
    "emoji": "👩‍👩‍👧‍👦 🇰🇪 👍🏽",
    "punctuation": "?! … ،؛ 「」 ---",
    "markup": "&amp;&lt;&quot; <skipped> -\n{0} %s \\",
    "not characters": "\uffff\U0010ffff\ue000 \ufdd0",
    "line ends": "a\r\nb\rc\n\n\nd\x0be\x0cf",
    "full width": "ＡＢＣ　１２３ ﾃﾞｰﾀ ﬁ ½ ﷺ",
    "capital that grows": "İIıi ẞß ŉ",
    "spaces": " \t\n\u00a0\u3000\u2003",
    "empty": "",
}
REFERENCES = ["a reference of five words", "مرجع من خمس كلمات", "参考文", "\ud800", "", " "]

Make = Callable[..., Metric]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """(name, language, more settings) -> the metric, with what it cannot do without."""
    model = str(save_tiny_encoder(tmp_path_factory.mktemp("encoder")))

    def create(name: str, language: str, **fields: object) -> Metric:
        return metrics.create(name, {"language": language} | fields | ({"model": model} if name == "bert_score" else {}))

    return create


def score(metric: Metric, prediction: str, *references: str) -> float:
    found = metric.aggregate(metric.statistics(prediction, references)[None], np.ones(1))[0]
    assert np.isfinite(found)
    assert 0.0 <= found <= 100.0 + 1e-9
    return float(found)


def can_match(metric: Metric, text: str) -> bool:
    """Whether a text can equal itself: a pair of words takes two, BLEU four tokens, an encoder any that its tokenizer keeps."""
    if isinstance(metric, Bleu):
        return len(metric.tokens(text)) >= 4
    if isinstance(metric, Rouge2):
        return len(words_by(text, metric.language, metric.tokenizer)) >= 2
    if isinstance(metric, BertScore):
        encoder = load_encoder(str(metric.model), metric.layer, metric.device)
        return encoder.has_tokens(text.encode("utf-8", "replace").decode("utf-8"))
    return bool(text.strip())


def check_laws(metric: Metric, text: str) -> None:
    score(metric, text, *REFERENCES)
    score(metric, "a reference", text)
    expected = 100.0 if can_match(metric, text) else 0.0
    assert score(metric, text, text) == pytest.approx(expected, abs=1e-3 if isinstance(metric, BertScore) else 1e-9)
    assert score(metric, text, "") == score(metric, text, " \n", "") == 0.0
    assert score(metric, "", text) == 0.0


@pytest.mark.parametrize("name", list(metrics))
@pytest.mark.parametrize("language", LANGUAGES)
def test_odd_text(make: Make, name: str, language: str) -> None:
    metric = make(name, language)
    for text in ODD.values():
        check_laws(metric, text)


@pytest.mark.parametrize("name", ["bleu", "rouge_1", "rouge_2", "rouge_l", "rouge_lsum"])
@pytest.mark.parametrize("language", ["zh", "ja"])
def test_odd_text_in_words(make: Make, name: str, language: str) -> None:
    for text in ODD.values():
        metric = make(name, language, tokenizer="words")
        if text.strip() and isinstance(metric, Bleu):
            score(metric, text, text)  # characters that are none are left out, so there may be no token
        else:
            check_laws(metric, text)


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "zh", "char", "none"])
def test_odd_text_in_each_of_sacrebleu_s_tokenizers(tokenizer: str) -> None:
    for text in ODD.values():
        check_laws(Bleu("en", tokenizer), text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(), max_size=60), language=st.sampled_from(LANGUAGES))
def test_any_text(text: str, language: str) -> None:
    for name in STRING_METRICS:
        check_laws(metrics.create(name, {"language": language}), text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_odd_answers_are_described(language: str) -> None:
    found = describe_answers([*ODD.values(), None], [[text, ""] for text in (*ODD.values(), "a")], language)
    assert found.unscored == 1
    assert found.empty_share == pytest.approx(2 / len(ODD))
    assert found.length_ratio == pytest.approx(1.0)
    assert found.repetition is not None
    assert 0.0 <= found.repetition < 0.1


def random_words(seed: int) -> str:
    generator = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(5_000)]
    return " ".join(generator.choices(vocabulary, k=LONG // 6))


def random_characters(seed: int) -> str:
    generator = random.Random(seed)
    return "".join(map(chr, generator.choices(range(0x4E00, 0x4E00 + 3_000), k=LONG // 3)))


HUGE = {
    "words": ("en", random_words),
    "characters": ("zh", random_characters),
    "one word": ("sw", lambda seed: "w" * (LONG - seed)),
    "spaces": ("en", lambda seed: " " * LONG + "x"),
    "marks": ("ar", lambda seed: "a" + "\u0315\u0300" * (LONG // 4 - seed)),
    "lines": ("en", lambda seed: "\n".join(f"a b{number % 97} c{number * (seed + 1)}" for number in range(LONG // 12))),
}


@pytest.mark.parametrize("name", STRING_METRICS)
@pytest.mark.parametrize("kind", HUGE)
def test_a_long_text_is_scored_in_bounded_time(name: str, kind: str) -> None:
    language, text = HUGE[kind]
    metric = metrics.create(name, {"language": language})
    started = time.perf_counter()
    score(metric, text(0), "a short reference")
    assert time.perf_counter() - started < SECONDS


@pytest.mark.parametrize("name", ["rouge_l", "rouge_lsum", "bleu"])
@pytest.mark.parametrize("kind", ["words", "characters", "lines"])
def test_two_long_texts_are_compared_in_bounded_time(name: str, kind: str) -> None:
    language, text = HUGE[kind]
    metric = metrics.create(name, {"language": language})
    started = time.perf_counter()
    assert 0.0 < score(metric, text(0), text(1)) < 100.0
    assert time.perf_counter() - started < SECONDS


def test_a_long_text_is_embedded_in_bounded_time(make: Make) -> None:
    metric = make("bert_score", "en")
    started = time.perf_counter()
    assert score(metric, random_words(0), random_words(0)) == pytest.approx(100.0, abs=1e-3)
    assert time.perf_counter() - started < SECONDS


def test_many_long_lines_are_compared_in_bounded_time() -> None:
    """The worst case of ROUGE-Lsum: each line of one text with each line of the other, all of the same few words."""
    generator = random.Random(0)
    texts = ["\n".join(" ".join(generator.choices("abcdefgh", k=40)) for _ in range(MEGABYTE // 80)) for _ in range(2)]
    started = time.perf_counter()
    assert score(metrics.create("rouge_lsum"), *texts) > 50.0
    assert time.perf_counter() - started < SECONDS
