"""A score over several seeds that answered the same examples, as one metric.

Axes: N examples, K seeds, S statistics, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from pomona.evaluation.scores import MeanLoss
from pomona.metrics import Metric
from pomona.metrics.bootstrap import clustered


@dataclass(frozen=True, eq=False)
class Rows:
    """A metric's statistics of each example under one seed, [N, S], zeros where it was not scored; and where it was, [N]."""

    statistics: Float64[np.ndarray, "N S"]
    scored: Bool[np.ndarray, " N"]


def rows(texts: Sequence[str | None], references: Sequence[Sequence[str]], losses: Sequence[float], metric: Metric) -> Rows | None:
    """What a metric makes of the answers under one seed; None where no example is scored.

    Args:
        texts: [N], None where there is no answer.
        references: [N], those of each example.
        losses: [N], NaN where unknown; for `MeanLoss`.
        metric: the texts', or `MeanLoss`.
    """
    if isinstance(metric, MeanLoss):
        values = np.array(losses, dtype=np.float64)
        scored = np.isfinite(values)
        found = values[scored, None]
    else:
        scored = np.array([text is not None for text in texts], dtype=bool)
        pairs = [(text, theirs) for text, theirs in zip(texts, references, strict=True) if text is not None]
        found = metric.table([text for text, _ in pairs], [theirs for _, theirs in pairs]) if pairs else np.zeros((0, 1))
    if not scored.any():
        return None
    statistics = np.zeros((len(scored), found.shape[1]))
    statistics[scored] = found
    return Rows(statistics, scored)


@dataclass(frozen=True)
class SeedMean(Metric):
    """The mean over seeds of a metric's score, in the shape of a metric so that it shares bootstrap and test.

    A row is one example under all seeds: for each seed 1 and the metric's statistics, or zeros where the example has no score. So
    an example is one draw however many seeds answered it. Where each seed scores every example and the metric is a mean over
    examples, it is the mean over all pairs of seed and example.

    Args:
        metric: of one seed.
        seeds: K, how many.
    """

    metric: Metric
    seeds: int

    def statistics(self, prediction: str, references: Sequence[str]) -> Float64[np.ndarray, " S"]:
        """Refused: a row has several predictions."""
        raise TypeError("a mean over seeds does not come from one prediction")

    def aggregate(self, totals: Float64[np.ndarray, "D S"], counts: Float64[np.ndarray, " D"]) -> Float64[np.ndarray, " D"]:
        """The mean over the seeds that have a score in a draw."""
        scores_DK = self.of_seeds(totals)
        there_DK = np.isfinite(scores_DK)
        return np.where(there_DK, scores_DK, 0.0).sum(axis=1) / there_DK.sum(axis=1)

    def of_seeds(self, totals: Float64[np.ndarray, "D S"]) -> Float64[np.ndarray, "D K"]:
        """Each seed's score in each draw, NaN where it has none."""
        parts_DKS = totals.reshape(len(totals), self.seeds, -1)
        counts_DK = parts_DKS[:, :, 0]
        flat_XS = parts_DKS[:, :, 1:].reshape(-1, parts_DKS.shape[2] - 1)
        scores_DK = self.metric.aggregate(flat_XS, np.maximum(counts_DK.reshape(-1), 1.0)).reshape(counts_DK.shape)
        return np.where(counts_DK > 0, scores_DK, np.nan)

    def left_out(self, statistics: Float64[np.ndarray, "N S"], groups: Sequence[str]) -> Float64[np.ndarray, "C K"]:
        """Each seed's score without one cluster, for each cluster; NaN where it has no other.

        Args:
            statistics: rows of `joined`.
            groups: [N], examples of one group are one cluster.
        """
        totals_CS, _ = clustered(statistics, groups)
        return self.of_seeds(totals_CS.sum(axis=0) - totals_CS)


def joined(rows: Sequence[Rows], scored: Sequence[np.ndarray], kept: np.ndarray) -> Float64[np.ndarray, "N KS"]:
    """The seeds' rows side by side, as `SeedMean` takes them.

    Args:
        rows: of each seed.
        scored: [K] of [N], which examples count under each seed.
        kept: [N], which rows are wanted.
    """
    parts = [
        np.where(where[:, None], np.column_stack([where, one.statistics]), 0.0) for one, where in zip(rows, scored, strict=True)
    ]
    return np.concatenate(parts, axis=1)[kept]
