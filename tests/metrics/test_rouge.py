"""ROUGE against rouge-score itself, with its own tokens and with ours."""

from __future__ import annotations

import importlib.metadata
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from pomona.metrics import Metric, Rouge1, Rouge2, RougeL, RougeLsum, rouge
from pomona.metrics.text import words, words_without_rest

KINDS: dict[str, type[Metric]] = {"rouge1": Rouge1, "rouge2": Rouge2, "rougeL": RougeL, "rougeLsum": RougeLsum}
PIECES = st.sampled_from(["The", "cat,", "sat", "cat", "3.5", "naïve", "don't", "U.S.", "!", "--", "", "\n", "\n", "\n\n", "\r\n"])
TEXTS = st.lists(PIECES, max_size=25).map(" ".join)


class OurWords(Tokenizer):
    """Words by our rules for rouge-score's counting."""

    def __init__(self, language: str, tokenizer: str) -> None:
        self.language, self.tokenizer = language, tokenizer

    def tokenize(self, text: str) -> tuple[str, ...]:
        return words_without_rest(text, self.language, self.tokenizer)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_english_is_rouge_score_s_default_to_the_last_bit(prediction: str, references: list[str]) -> None:
    oracle = RougeScorer(list(KINDS))
    texts = (prediction, *references)
    # The one deviation: texts without a letter or digit are compared by what they have.
    if sum(any(map(str.isalnum, text)) for text in texts) < len(texts) - 1:
        return
    expected = oracle.score_multi(references, prediction)
    for kind, metric in KINDS.items():
        assert metric().statistics(prediction, references).tolist() == [expected[kind].fmeasure]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokenizer", ["auto", "characters", "words"])
@pytest.mark.parametrize(
    ("language", "alphabet"),
    [
        ("ar", ["كتاب", "قلم،", "بيت", "في", "\n"]),
        ("zh", ["山", "清华大学", "在", "，", "ok ", "\n"]),
        ("ja", ["東京", "タワー", "は", "。", "ok ", "\n"]),
        ("sw", ["mji", "mkuu.", "ni", "Nairobi", "\n"]),
    ],
)
def test_other_languages_are_rouge_score_with_our_words(kind: str, tokenizer: str, language: str, alphabet: list[str]) -> None:
    generator = random.Random(1)
    oracle = RougeScorer([kind], tokenizer=OurWords(language, tokenizer))
    metric = KINDS[kind](language=language, tokenizer=tokenizer)  # pyright: ignore[reportCallIssue]
    for _ in range(60):
        prediction, *references = (" ".join(generator.choices(alphabet, k=generator.randrange(1, 12))) for _ in range(3))
        if not all(any(map(str.isalnum, text)) for text in (prediction, *references)):
            continue
        expected = oracle.score_multi(references, prediction)[kind].fmeasure
        assert metric.statistics(prediction, references).tolist() == [expected]


def test_by_hand() -> None:
    prediction, references = "the cat sat", ["the cat lay there", "a dog"]
    assert Rouge1().statistics(prediction, references)[0] == pytest.approx(4 / 7)
    assert Rouge2().statistics(prediction, references)[0] == pytest.approx(2 / 5)
    assert RougeL().statistics("sat the cat", references)[0] == pytest.approx(4 / 7)
    assert RougeL().statistics("cat the", ["the cat"])[0] == pytest.approx(1 / 2)


def test_lines_by_hand() -> None:
    # Lin's example: of "w1 w2 w3 w4 w5", the first line has "w1 w2" and the second "w1 w3 w5" in common; the union is four words.
    reference, prediction = "w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"
    precision, recall = 4 / 10, 4 / 5
    assert RougeLsum().statistics(prediction, [reference])[0] == pytest.approx(2 * precision * recall / (precision + recall))
    # Swapped lines cost nothing, where ROUGE-L loses one of them.
    assert RougeLsum().statistics("c d\na b", ["a b\nc d"])[0] == 1.0
    assert RougeL().statistics("c d\na b", ["a b\nc d"])[0] == pytest.approx(1 / 2)
    # A word counts no more often than both sides have it.
    assert RougeLsum().statistics("a", ["a b\na c"])[0] == pytest.approx(2 * 1 * (1 / 4) / (1 + 1 / 4))


def test_text_without_words_equals_itself_alone() -> None:
    for metric in (Rouge1(), RougeL(), RougeLsum("zh")):
        assert metric.statistics("?! 👍", ["?! 👍"])[0] == 1.0
        assert metric.statistics("👍", ["ok", "👎"])[0] == 0.0
    # A line of dashes counts where nothing else is there.
    assert RougeLsum().statistics("one\n---\ntwo", ["one\ntwo"])[0] == 1.0


def test_only_the_beginning_of_endless_texts_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rouge, "LONGEST", 4)
    monkeypatch.setattr(rouge, "MOST_LINES", 2)
    assert RougeL().statistics("a b c d x y", ["a b c d"])[0] == 1.0
    assert RougeL().statistics("a b c x d", ["a b c d"])[0] == pytest.approx(3 / 4)
    assert RougeLsum().statistics("a\nb\nx", ["a\nb\ny"])[0] == 1.0
    assert RougeLsum().statistics("a b c\nd e", ["a b c\nd"])[0] == 1.0
    assert Rouge1().statistics("a b c d x", ["a b c d"])[0] == pytest.approx(8 / 9)


def test_signatures() -> None:
    version = importlib.metadata.version("rouge-score")
    assert Rouge1().signature == f"rouge-score|v:{version}|type:rouge1|tok:a-z0-9|stem:no|refs:best"
    assert RougeLsum("zh", tokenizer="words").signature.startswith(f"rouge-score|v:{version}|type:rougeLsum|tok:jieba-")
    assert RougeL("ar").signature != RougeL("ar", tokenizer="characters").signature
    assert words("A b", "en") == ("a", "b")
