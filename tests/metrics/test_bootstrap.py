from __future__ import annotations

import numpy as np
import pytest
import torch

from pomona.metrics import Bleu, ExactMatch, Metric, corpus_score, interval
from pomona.metrics.bootstrap import clustered, resamples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bleu_statistics(count: int) -> np.ndarray:
    texts = ["a b c d e", "a b x d e f", "q r s t", "a b c d"]
    return np.stack([Bleu().statistics(texts[n % 4] + " z" * (n % 3), ["a b c d e f"]) for n in range(count)])


def test_equals_a_loop_over_the_same_draws() -> None:
    statistics, metric = bleu_statistics(30), Bleu()
    picks = torch.randint(30, (40, 30), generator=generator()).numpy()
    scores = [corpus_score(statistics[rows], metric) for rows in picks]
    found = interval(statistics, metric, draws=40, level=0.8, generator=generator())
    assert found == pytest.approx((corpus_score(statistics, metric), np.quantile(scores, 0.1), np.quantile(scores, 0.9)), abs=1e-9)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("metric", [Bleu(), ExactMatch()])
def test_clusters_are_drawn_whole(metric: Metric) -> None:
    statistics = bleu_statistics(12) if isinstance(metric, Bleu) else np.arange(12.0)[:, None] / 12
    groups = ["g", None, "h", "g", "h", None, "i", "g", None, "i", "j", "g"]
    members = [[0, 3, 7, 11], [1], [2, 4], [5], [6, 9], [8], [10]]
    picks = torch.randint(7, (50, 7), generator=generator(1)).numpy()
    scores = [corpus_score(statistics[[row for cluster in draw for row in members[cluster]]], metric) for draw in picks]
    found = interval(statistics, metric, draws=50, generator=generator(1), groups=groups)
    assert found == pytest.approx(
        (corpus_score(statistics, metric), np.quantile(scores, 0.025), np.quantile(scores, 0.975)), abs=1e-9
    )


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


@pytest.mark.parametrize("per_group", [1, 5])
def test_intervals_cover_the_truth(per_group: int) -> None:
    """95 % intervals of a mean of 0/1 scores hold it in about 95 % of 300 trials (3 standard errors: 3.8 points), also where
    the five examples of a group all agree; without clustering those would cover in about 60 %.
    """
    random = np.random.default_rng(7)
    covered = covered_without_groups = 0
    for trial in range(300):
        clusters = (random.random(100) < 0.4).astype(np.float64)
        statistics = np.repeat(clusters, per_group)[:, None]
        groups = [str(n // per_group) for n in range(len(statistics))]
        found = interval(statistics, ExactMatch(), draws=200, generator=generator(trial), groups=groups)
        covered += found.low <= 40.0 <= found.high
        if per_group > 1 and trial < 60:
            found = interval(statistics, ExactMatch(), draws=200, generator=generator(trial))
            covered_without_groups += found.low <= 40.0 <= found.high
    assert 0.912 <= covered / 300 <= 0.988
    assert covered_without_groups < 48


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
