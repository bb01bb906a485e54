"""BLEU and chrF against sacrebleu on made-up text, and every string metric against its library on real text of six languages."""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from tests.real_data import DATA

from pomona.errors import InputError
from pomona.metrics import Bleu, Chrf, Metric, corpus_score, metrics
from pomona.metrics.segment import segment
from pomona.metrics.text import words_without_rest

SETS = {
    "en": ("scitldr/en", "references"),
    "ar": ("arcd/ar", "context"),
    "zh": ("csl_title/zh", "summary"),
    "ja": ("jsts_paraphrase/ja", "references"),
    "ko": ("tydiqa_goldp/ko", "context"),
    "sw": ("tydiqa_goldp/sw", "context"),
}
AUTO = {"zh": "zh", "ja": "char"}
References = Sequence[Sequence[str]]


def streams(references: References) -> list[list[str | None]]:
    """References as sacrebleu takes them: one list for the first of each example, and so on; None where there is none."""
    return [[each[place] if place < len(each) else None for each in references] for place in range(max(map(len, references)))]


def bleu(predictions: list[str], references: References, tokenizer: str) -> float:
    return sacrebleu.corpus_bleu(predictions, streams(references), tokenize=tokenizer).score  # pyright: ignore[reportArgumentType]


def chrf(predictions: list[str], references: References) -> float:
    return sacrebleu.corpus_chrf(predictions, streams(references)).score  # pyright: ignore[reportArgumentType]


def score(metric: Metric, predictions: list[str], references: References) -> float:
    return corpus_score(metric.table(predictions, references), metric)


def damaged(text: str, generator: random.Random) -> str:
    """Some words (or, where there are few, characters) of each line missing, and lines in another order."""
    lines = text.split("\n")
    generator.shuffle(lines)
    return "\n".join(thinned(line, generator) for line in lines)


def thinned(line: str, generator: random.Random) -> str:
    parts, between = (line.split(), " ") if len(line.split()) > 5 else (list(line), "")
    return between.join(part for part in parts if generator.random() > 0.2)


@functools.cache
def real(language: str) -> tuple[list[str], list[list[str]]]:
    """Predictions, some of them empty or wrong, with one to three references; contexts are cut into a line for each sentence."""
    path, field = SETS[language]
    rows = [json.loads(line) for line in (DATA / path / "test.jsonl").read_text(encoding="utf-8").splitlines()[:40]]
    generator = random.Random(0)
    references = []
    for row in rows:
        texts = row[field] if isinstance(row[field], list) else [row[field]]
        references.append(["\n".join(re.split(r"(?<=[.!?؟])\s+", text)[:4]) for text in texts])
    for place, theirs in enumerate(references):
        theirs += [damaged(references[(place + more) % len(rows)][0], generator) for more in range(place % 3)]
    predictions = [damaged(generator.choice(theirs), generator) for theirs in references]
    predictions[3], predictions[7], predictions[11] = "", references[8][0], "?"
    return predictions, references


class OurWords(Tokenizer):
    """Words by our rules for rouge-score's counting."""

    def __init__(self, language: str, tokenizer: str) -> None:
        self.language, self.tokenizer = language, tokenizer

    def tokenize(self, text: str) -> tuple[str, ...]:
        return words_without_rest(text, self.language, self.tokenizer)


@pytest.mark.parametrize("language", SETS)
def test_rouge_on_real_text(language: str) -> None:
    predictions, references = real(language)
    kinds = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}
    for tokenizer in ("auto", "characters", "words") if language in ("zh", "ja") else ("auto",):
        oracle = RougeScorer(list(kinds.values()), tokenizer=None if language == "en" else OurWords(language, tokenizer))
        expected = [oracle.score_multi(theirs, one) for one, theirs in zip(predictions, references, strict=True)]
        for name, kind in kinds.items():
            found = score(metrics.create(name, {"language": language, "tokenizer": tokenizer}), predictions, references)
            assert found == pytest.approx(100 * np.mean([each[kind].fmeasure for each in expected]), abs=1e-9)
            assert 20.0 < found < 97.0


@pytest.mark.parametrize("language", SETS)
def test_bleu_on_real_text(language: str) -> None:
    predictions, references = real(language)
    for tokenizer in ("auto", "13a", "intl", "zh", "char", "none"):
        found = score(Bleu(language, tokenizer), predictions, references)
        plain = AUTO.get(language, "13a") if tokenizer == "auto" else tokenizer
        assert found == pytest.approx(bleu(predictions, references, plain), abs=1e-9)
        assert found > 10.0 or tokenizer in ("13a", "intl", "none")


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_bleu_on_real_words(language: str) -> None:
    predictions, references = real(language)
    cut = functools.partial(lambda text: " ".join(segment(text, language)))
    expected = bleu([cut(one) for one in predictions], [[cut(one) for one in theirs] for theirs in references], "none")
    assert score(Bleu(language, "words"), predictions, references) == pytest.approx(expected, abs=1e-9)
    assert expected > 10.0


@pytest.mark.parametrize("language", SETS)
def test_chrf_on_real_text(language: str) -> None:
    predictions, references = real(language)
    found = score(Chrf(language), predictions, references)
    assert found == pytest.approx(chrf(predictions, references), abs=1e-9)
    assert 20.0 < found < 97.0


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "exact_match", "token_f1"])
@pytest.mark.parametrize("language", SETS)
def test_real_text_scores_100_against_itself(name: str, language: str) -> None:
    _, references = real(language)
    first = [theirs[0] for theirs in references]
    assert score(metrics.create(name, {"language": language}), first, references) == pytest.approx(100.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_made_up_text(seed: int) -> None:
    generator = random.Random(seed)
    # Short texts from few words: orders without a match, without n-grams, empty predictions, ties between references.
    vocabulary = ["a", "b.", "c-d", "3,5", "&amp;", "Ee"]
    length = [2, 3, 5, 8, 12, 20][seed]
    texts = [
        [" ".join(generator.choices(vocabulary, k=generator.randrange(length))) for _ in range(generator.randrange(2, 5))]
        for _ in range(12)
    ]
    predictions, references = [one[0] for one in texts], [one[1:] for one in texts]
    assert score(Bleu(), predictions, references) == pytest.approx(bleu(predictions, references, "13a"), abs=1e-9)
    assert score(Chrf(), predictions, references) == pytest.approx(chrf(predictions, references), abs=1e-9)


def test_bleu_by_hand() -> None:
    # 1-grams 3 of 4, 2-grams 2 of 3, 3-grams 1 of 2, 4-grams 0 of 1 (smoothed to 1/2 of 1), reference of 5.
    metric = Bleu()
    one = metric.statistics("a b c x", ["a b c d e"])
    assert one.tolist() == [4, 5, 3, 2, 1, 0, 4, 3, 2, 1]
    assert corpus_score(one[None], metric) == pytest.approx(100 * np.exp(1 - 5 / 4) * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    # Of two references, "a" counts as often as in the one that has most of it; of equally close lengths the shorter counts.
    assert metric.statistics("a a a", ["a b", "a a c d"])[:4].tolist() == [3, 2, 2, 1]


def test_chrf_by_hand() -> None:
    # "ab" against "abc": orders 1 and 2 are on both sides. P = (1 + 1) / 2, R = (2/3 + 1/2) / 2; order 3 counts on one side only.
    metric = Chrf()
    one = metric.statistics("a b", ["abc"])
    assert one.tolist() == [2, 3, 2, 1, 2, 1, 0, 1, 0, *[0] * 9]
    recall = 7 / 12
    assert corpus_score(one[None], metric) == pytest.approx(100 * 5 * recall / (4 + recall))


@pytest.mark.parametrize("metric", [Bleu(), Chrf()])
def test_many_corpora_at_once_equal_one_at_a_time(metric: Metric) -> None:
    texts = ["a b c d", "x", "", "a b c", "q r s t u v"]
    totals = np.stack([metric.statistics(text, ["a b c d e", "q r s t u"]) for text in texts])
    together = metric.aggregate(totals, np.ones(len(texts)))
    apart = [metric.aggregate(row[None], np.ones(1))[0] for row in totals]
    assert together.tolist() == apart
    assert together[2] == 0.0


@pytest.mark.parametrize("references", [[["a"], ["b"]], [["a", "b"], ["c", "d"]], [["a"], ["b", "c"]]])
def test_signatures_are_sacrebleu_s_own(references: References) -> None:
    plain_bleu, plain_chrf = BLEU(tokenize="zh"), CHRF()
    for plain in (plain_bleu, plain_chrf):
        plain.corpus_score(["a", "b"], streams(references))  # pyright: ignore[reportArgumentType]
    assert Bleu("zh").signature_for(references) == str(plain_bleu.get_signature())
    assert Chrf("zh").signature_for(references) == str(plain_chrf.get_signature())


def test_signatures_without_examples() -> None:
    version = sacrebleu.__version__
    assert Bleu("sw").signature == f"nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert Chrf().signature == f"nrefs:var|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"
    assert "|tok:jieba-" in Bleu("zh", "words").signature


def test_the_tokenizer_follows_the_language() -> None:
    found = [Bleu(tag).sacrebleu_tokenizer for tag in ("en", "ar", "ko", "zh-hant", "ja", "th")]
    assert found == ["13a", "13a", "13a", "zh", "char", "char"]


@pytest.mark.parametrize("tokenizer", ["flores200", "spm", "13", ""])
def test_tokenizers_that_need_the_network_or_do_not_exist_are_refused(tokenizer: str) -> None:
    with pytest.raises(
        InputError, match=r"^tokenizer: no such tokenizer .* Known: 13a, auto, char, intl, ja-mecab, ko-mecab, none"
    ):
        Bleu(tokenizer=tokenizer)
