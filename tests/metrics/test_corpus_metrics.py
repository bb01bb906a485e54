"""BLEU and chrF against sacrebleu, on made-up and on real text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from pomona.metrics import Bleu, Chrf, Metric, corpus_score
from pomona.metrics.text import bleu_tokenizer

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def statistics(metric: Metric, predictions: list[str], references: list[list[str]]) -> np.ndarray:
    return np.stack([metric.statistics(one, theirs) for one, theirs in zip(predictions, references, strict=True)])


def both(language: str, predictions: list[str], references: list[list[str]]) -> tuple[list[float], list[float]]:
    """(ours, sacrebleu's) BLEU and chrF; every example has the same number of references."""
    ours = [corpus_score(statistics(metric, predictions, references), metric) for metric in (Bleu(language), Chrf(language))]
    streams = [list(stream) for stream in zip(*references, strict=True)]
    theirs = [
        sacrebleu.corpus_bleu(predictions, streams, tokenize=bleu_tokenizer(language)).score,
        sacrebleu.corpus_chrf(predictions, streams).score,
    ]
    return ours, theirs


def damaged(text: str, generator: random.Random) -> str:
    """Some words (or, where there are few, characters) of the text missing."""
    parts = text.split() if len(text.split()) > 5 else list(text)
    return (" " if len(text.split()) > 5 else "").join(part for part in parts if generator.random() > 0.2)


@pytest.mark.parametrize("seed", range(6))
def test_made_up_text(seed: int) -> None:
    generator = random.Random(seed)
    # Short texts from few words: orders without a match, without n-grams, empty predictions, ties between references.
    vocabulary = ["a", "b.", "c-d", "3,5", "&amp;", "Ee"]
    length = [2, 3, 5, 8, 12, 20][seed]
    texts = [[" ".join(generator.choices(vocabulary, k=generator.randrange(length))) for _ in range(3)] for _ in range(12)]
    ours, theirs = both("en", [one[0] for one in texts], [one[1:] for one in texts])
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("path", "language", "field"),
    [
        ("scitldr/en", "en", "summary"),
        ("xquad/ar", "ar", "question"),
        ("csl_title/zh", "zh", "summary"),
        ("jsts_paraphrase/ja", "ja", "references"),
        ("tydiqa_goldp/ko", "ko", "question"),
        ("tydiqa_goldp/sw", "sw", "question"),
    ],
)
def test_real_text(path: str, language: str, field: str) -> None:
    file = DATA / path / "test.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    values = [json.loads(line)[field] for line in file.read_text(encoding="utf-8").splitlines()[:40]]
    texts = [value if isinstance(value, str) else value[0] for value in values]
    generator = random.Random(0)
    ours, theirs = both(language, [damaged(text, generator) for text in texts], [[text] for text in texts])
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert 20.0 < ours[0] < 95.0
    assert both(language, texts, [[text] for text in texts])[0] == pytest.approx([100.0, 100.0], abs=1e-9)


def test_bleu_by_hand() -> None:
    # 1-grams 3 of 4, 2-grams 2 of 3, 3-grams 1 of 2, 4-grams 0 of 1 (smoothed to 1/2 of 1), reference of 5.
    metric = Bleu()
    one = metric.statistics("a b c x", ["a b c d e"])
    assert one.tolist() == [4, 5, 3, 2, 1, 0, 4, 3, 2, 1]
    assert corpus_score(one[None], metric) == pytest.approx(100 * np.exp(1 - 5 / 4) * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


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
