"""Metrics of strings, each with sufficient statistics of an example, and how sure their scores are."""

from pomona.metrics.base import Metric, metrics
from pomona.metrics.bert_score import BertScore
from pomona.metrics.bleu import Bleu
from pomona.metrics.bootstrap import Interval, corpus_score, interval
from pomona.metrics.chrf import Chrf
from pomona.metrics.diagnostics import AnswerStatistics, describe_answers
from pomona.metrics.exact_match import ExactMatch
from pomona.metrics.holm import holm
from pomona.metrics.rouge import Rouge1, Rouge2, RougeL, RougeLsum
from pomona.metrics.seeds import Spread, spread
from pomona.metrics.significance import Difference, paired_difference
from pomona.metrics.token_f1 import TokenF1

__all__ = [
    "AnswerStatistics",
    "BertScore",
    "Bleu",
    "Chrf",
    "Difference",
    "ExactMatch",
    "Interval",
    "Metric",
    "Rouge1",
    "Rouge2",
    "RougeL",
    "RougeLsum",
    "Spread",
    "TokenF1",
    "corpus_score",
    "describe_answers",
    "holm",
    "interval",
    "metrics",
    "paired_difference",
    "spread",
]
