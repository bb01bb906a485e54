"""The time of 10,000 predictions with every string metric and 1,000 bootstrap draws each, compared with the reference libraries.

Times are processor times, summed over the cores, so other work on the machine has little effect. The libraries score every tenth
example, and their time is multiplied by ten; they make no bootstrap draws.
"""

from __future__ import annotations

import json
import random
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pomona.metrics import Bleu, interval, metrics
from pomona.metrics.text import words
from pomona.seeding import stream

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
NAMES = ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "bleu", "chrf", "exact_match", "token_f1")
EXAMPLES, DRAWS = 10_000, 1_000
BOUND_SECONDS, BOUND_RATIO = 20.0, 1.2
PART = 10

Examples = tuple[list[str], list[list[str]]]


def run() -> bool:
    """Print the times of each language; whether every total is within its bound."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return all([_measure("en", *_english()), _measure("zh", *_chinese())])
    finally:
        torch.set_num_threads(threads)


def _measure(language: str, predictions: list[str], references: list[list[str]]) -> bool:
    each = sum(map(len, references)) / len(references)
    length = sum(len(words(text, language)) for text in predictions) / len(predictions)
    print(
        f"{language}: {len(predictions):,} predictions of {length:.1f} words, {each:.1f} references each, {DRAWS:,} draws a metric"
    )
    words("", language)
    total = drawing = 0.0
    for name in NAMES:
        metric = metrics.create(name, {"language": language})
        metric.statistics("a", ["a"])  # what is imported and built once
        start = time.process_time()
        statistics = metric.table(predictions, references)
        middle = time.process_time()
        interval(statistics, metric, DRAWS, generator=stream(0, "benchmark"))
        end = time.process_time()
        total, drawing = total + end - start, drawing + end - middle
        print(f"  {name:<12}{middle - start:6.2f} s, draws {end - middle:5.2f} s", flush=True)
    peer = _libraries(language, predictions[::PART], references[::PART]) * PART
    met = total < BOUND_SECONDS or total < BOUND_RATIO * peer
    print(f"  in all {total:.1f} s, of which draws {drawing:.1f} s; rouge-score and sacrebleu alone, without draws: {peer:.1f} s")
    print(f"  bound: {BOUND_SECONDS:g} s, or {BOUND_RATIO:g} times the libraries': {'met' if met else 'missed'}", flush=True)
    return met


def _libraries(language: str, predictions: list[str], references: list[list[str]]) -> float:
    """Seconds that rouge-score's four kinds, sacrebleu's BLEU and its chrF take."""

    class OurWords(Tokenizer):
        def tokenize(self, text: str) -> tuple[str, ...]:
            return words(text, language)

    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    rouge = RougeScorer(kinds, tokenizer=None if language == "en" else OurWords())
    most = max(map(len, references))
    streams = [[theirs[place] if place < len(theirs) else None for theirs in references] for place in range(most)]
    start = time.process_time()
    for prediction, theirs in zip(predictions, references, strict=True):
        rouge.score_multi(theirs, prediction)
    middle = time.process_time()
    for library in (BLEU(tokenize=Bleu(language).sacrebleu_tokenizer), CHRF()):
        library.corpus_score(predictions, streams)  # pyright: ignore[reportArgumentType]
    end = time.process_time()
    print(f"  rouge-score {PART * (middle - start):.1f} s, sacrebleu {PART * (end - middle):.1f} s")
    return end - start


def _english() -> Examples:
    """Summaries with all of their references, the predictions by leaving out words; made up where the data are absent."""
    rows = _rows("scitldr/en", "references") or [[_made_up(seed * 3 + more) for more in range(3)] for seed in range(300)]
    return _spread(rows, " ")


def _chinese() -> Examples:
    """Titles in pairs, which makes about 25 words."""
    rows = _rows("csl_title/zh", "summary") or [[_made_up(seed)] for seed in range(300)]
    return _spread([[f"{one[0]}，{other[0]}"] for one, other in pairwise(rows)], "")


def _rows(path: str, field: str) -> list[list[str]]:
    file = DATA / path / "test.jsonl"
    if not file.exists():
        return []
    values = [json.loads(line)[field] for line in file.read_text(encoding="utf-8").splitlines()]
    return [value if isinstance(value, list) else [value] for value in values]


def _spread(rows: list[list[str]], between: str) -> Examples:
    """10,000 examples: rows again and again, with a number in each text, so that none has been cut into words before."""
    generator = random.Random(0)
    predictions, references = [], []
    for place in range(EXAMPLES):
        theirs = [f"{text} {place}" for text in rows[place % len(rows)]]
        parts = theirs[0].split() if between else list(theirs[0])
        predictions.append(between.join(part for part in parts if generator.random() > 0.1) + f" {place}")
        references.append(theirs)
    return predictions, references


def _made_up(seed: int) -> str:
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("etaoinshrdlu", k=generator.randrange(2, 9))) for _ in range(22))


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
