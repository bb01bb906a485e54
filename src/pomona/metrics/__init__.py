"""Metrics of strings, each with sufficient statistics of an example, and how sure their scores are."""

from pomona.metrics.base import Metric, metrics
from pomona.metrics.bleu import Bleu
from pomona.metrics.bootstrap import Interval, corpus_score, interval
from pomona.metrics.chrf import Chrf
from pomona.metrics.exact_match import ExactMatch
from pomona.metrics.rouge import Rouge1, Rouge2, RougeL
from pomona.metrics.significance import Difference, paired_difference
from pomona.metrics.token_f1 import TokenF1

__all__ = [
    "Bleu",
    "Chrf",
    "Difference",
    "ExactMatch",
    "Interval",
    "Metric",
    "Rouge1",
    "Rouge2",
    "RougeL",
    "TokenF1",
    "corpus_score",
    "interval",
    "metrics",
    "paired_difference",
]
