from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pomona.metrics import Bleu, ExactMatch, Metric, corpus_score, interval
from pomona.metrics.bootstrap import clustered, quantile_levels, resamples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bleu_statistics(count: int) -> np.ndarray:
    texts = ["a b c d e", "a b x d e f", "q r s t", "a b c d"]
    return np.stack([Bleu().statistics(texts[n % 4] + " z" * (n % 3), ["a b c d e f"]) for n in range(count)])


def expanded(size: float, level: float) -> tuple[float, float]:
    """Hesterberg's levels, by scipy."""
    t = stats.t.ppf((1 + level) / 2, size - 1)
    low = float(stats.norm.cdf(-math.sqrt(size / (size - 1)) * t))
    return low, 1 - low


def test_equals_a_loop_over_the_same_draws() -> None:
    statistics, metric = bleu_statistics(30), Bleu()
    picks = torch.randint(30, (40, 30), generator=generator()).numpy()
    scores = [corpus_score(statistics[rows], metric) for rows in picks]
    found = interval(statistics, metric, draws=40, level=0.8, generator=generator())
    low, high = np.quantile(scores, expanded(30, 0.8))
    assert found == pytest.approx((corpus_score(statistics, metric), low, high), abs=1e-9)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("metric", [Bleu(), ExactMatch()])
def test_clusters_are_drawn_whole(metric: Metric) -> None:
    statistics = bleu_statistics(12) if isinstance(metric, Bleu) else np.arange(12.0)[:, None] / 12
    groups = ["g", None, "h", "g", "h", None, "i", "g", None, "i", "j", "g"]
    members = [[0, 3, 7, 11], [1], [2, 4], [5], [6, 9], [8], [10]]
    picks = torch.randint(7, (50, 7), generator=generator(1)).numpy()
    scores = [corpus_score(statistics[[row for cluster in draw for row in members[cluster]]], metric) for draw in picks]
    found = interval(statistics, metric, draws=50, generator=generator(1), groups=groups)
    # Sizes 4, 1, 2, 1, 2, 1, 1: worth 12 ** 2 / 28 = 5.1 equal clusters, so 5.
    low, high = np.quantile(scores, expanded(5, 0.95))
    assert found == pytest.approx((corpus_score(statistics, metric), low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("sizes", "worth"), [([1] * 30, 30), ([7] * 10, 10), ([3, 1], 2), ([50, 1, 1], 2), ([4, 4, 1], 2), ([2, 2, 1, 1], 3)]
)
def test_levels_widen_by_how_many_equal_clusters_these_are_worth(sizes: list[int], worth: int) -> None:
    for level in (0.5, 0.9, 0.95, 0.99):
        assert quantile_levels(np.array(sizes, np.float64), level) == pytest.approx(expanded(worth, level), rel=1e-8, abs=1e-15)


def test_of_many_examples_the_ends_are_the_plain_percentiles() -> None:
    assert quantile_levels(np.ones(100_000), 0.95) == pytest.approx((0.025, 0.975), abs=1e-5)


def test_a_single_cluster_shows_no_spread() -> None:
    found = interval(np.array([[0.0], [1.0]]), ExactMatch(), generator=generator(), groups=["g", "g"])
    assert found == (50.0, 50.0, 50.0)


def test_ends_stay_within_what_the_metric_can_reach() -> None:
    for right in range(5):
        found = interval((np.arange(4.0) < right)[:, None] * 1.0, ExactMatch(), generator=generator())
        # Every draw counts between none and all of four, and with four examples the ends are the outermost draws.
        assert found == (25.0 * right, 0.0 if right < 4 else 100.0, 100.0 if right else 0.0)


def test_clustering_by_hand() -> None:
    totals, sizes = clustered(np.array([[1.0], [2.0], [4.0], [8.0]]), ["g", None, "g", None])
    assert (totals.tolist(), sizes.tolist()) == ([[5.0], [2.0], [8.0]], [2.0, 1.0, 1.0])


def test_draws_in_chunks_are_all_there_and_each_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pomona.metrics.bootstrap._CHUNK_ENTRIES", 25)
    chunks = list(resamples(10, 7, generator()))
    assert [chunk.shape for chunk in chunks] == [(2, 10), (2, 10), (2, 10), (1, 10)]
    assert [chunk.sum(axis=1).tolist() for chunk in chunks] == [[10.0, 10.0]] * 3 + [[10.0]]


def test_the_generator_alone_decides() -> None:
    statistics = np.random.default_rng(0).random((20, 1))
    one, same, other = (interval(statistics, ExactMatch(), generator=generator(seed)) for seed in (3, 3, 4))
    assert one == same
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


def _few(random: np.random.Generator) -> tuple[np.ndarray, list[str] | None, float]:
    scores = np.where(random.random(30) < 0.4, 0.0, random.beta(2, 4, 30))
    return scores[:, None], None, 20.0


def _clusters(random: np.random.Generator) -> tuple[np.ndarray, list[str] | None, float]:
    """Twelve documents of very unequal size, whose examples all agree."""
    document = np.repeat(np.arange(12), np.minimum(random.geometric(0.2, 12), 30))
    scores = (random.random(12) < 0.4)[document] * 1.0
    return scores[:, None], list(map(str, document)), 40.0


def test_intervals_cover_the_truth() -> None:
    """95 % intervals hold the truth in 95 % of 500 trials, within 3 standard errors (2.9 points), of 30 examples and of a dozen
    documents. `benchmarks/coverage.py` holds many more cases to narrower bounds.
    """
    for case in (_few, _clusters):
        random, covered = np.random.default_rng(7), 0
        for trial in range(500):
            statistics, groups, truth = case(random)
            found = interval(statistics, ExactMatch(), generator=generator(trial), groups=groups)
            covered += found.low <= truth <= found.high
        assert 0.921 <= covered / 500 <= 0.979


def test_without_groups_intervals_of_documents_are_too_narrow() -> None:
    random, covered = np.random.default_rng(7), 0
    for trial in range(100):
        statistics, _, truth = _clusters(random)
        found = interval(statistics, ExactMatch(), generator=generator(trial))
        covered += found.low <= truth <= found.high
    assert covered < 75


@pytest.mark.parametrize(
    ("statistics", "fields"),
    [
        (np.zeros((0, 1)), {}),
        (np.zeros((2, 1)), {"draws": 0}),
        (np.zeros((2, 1)), {"level": 1.0}),
        (np.zeros((2, 1)), {"groups": ["a"]}),
    ],
)
def test_what_cannot_be_drawn_from_is_refused(statistics: np.ndarray, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"statistics must be|draws must be|groups for"):
        interval(statistics, ExactMatch(), generator=generator(), **fields)  # pyright: ignore[reportArgumentType]
