from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from pomona.metrics import Bleu, ExactMatch, corpus_score, paired_difference


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bleu_pair(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two systems, the first of which is somewhat better."""
    texts = ["q r s t", "a b x d e f", "a b c d", "a b c d e", "a b c d e f"]
    random = np.random.default_rng(0)
    a, b = (random.choice(5, size=count, p=weights) for weights in ([0.1, 0.1, 0.2, 0.3, 0.3], [0.2, 0.3, 0.2, 0.2, 0.1]))
    first, second = ([Bleu().statistics(texts[n], ["a b c d e f"]) for n in picks] for picks in (a, b))
    return np.stack(first), np.stack(second)


def test_equals_a_loop_over_the_same_draws_and_exchanges() -> None:
    (a, b), metric, draws = bleu_pair(15), Bleu(), 60
    source = generator(2)
    picks = torch.randint(15, (draws, 15), generator=source).numpy()
    swaps = torch.randint(2, (draws, 15), generator=source).numpy().astype(bool)[:, :, None]
    observed = corpus_score(a, metric) - corpus_score(b, metric)
    differences = [corpus_score(a[rows], metric) - corpus_score(b[rows], metric) for rows in picks]
    exchanged = [corpus_score(np.where(swap, b, a), metric) - corpus_score(np.where(swap, a, b), metric) for swap in swaps]
    p_value = (1 + sum(abs(one) >= abs(observed) - 1e-9 for one in exchanged)) / (draws + 1)
    low = stats.norm.cdf(-np.sqrt(15 / 14) * stats.t.ppf(0.975, 14))
    expected = (observed, np.quantile(differences, low), np.quantile(differences, 1 - low), p_value)
    assert paired_difference(a, b, metric, draws=draws, generator=generator(2)) == pytest.approx(expected, abs=1e-9)
    assert 2 / 61 < p_value < 0.9


@pytest.mark.parametrize(("draws", "tolerance"), [(255, 0.1), (256, 1e-12), (20_000, 1e-12)])
def test_the_p_value_is_that_of_all_exchanges_where_they_are_no_more_than_the_draws(draws: int, tolerance: float) -> None:
    a, b = np.array([1.0, 1, 0, 1, 1, 1, 0, 1])[:, None], np.array([0.0, 1, 0, 0, 0, 1, 1, 0])[:, None]
    observed = abs((a - b).sum())
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = float((np.abs(signs @ (a - b)[:, 0]) >= observed).mean())
    found = paired_difference(a, b, ExactMatch(), draws=draws, generator=generator())
    assert found.difference == pytest.approx(37.5)
    assert found.p_value == pytest.approx(exact, abs=tolerance)


def test_random_exchanges_come_near_all_of_them() -> None:
    a, b = bleu_pair(12)
    exact, drawn = (paired_difference(a, b, Bleu(), draws=draws, generator=generator()).p_value for draws in (4096, 4095))
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4095))


def test_systems_that_are_equal_do_not_differ() -> None:
    a, _ = bleu_pair(9)
    assert paired_difference(a, a.copy(), Bleu(), generator=generator()) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_has_the_smallest_p_value_there_is() -> None:
    a, b = np.ones((40, 1)), np.zeros((40, 1))
    assert paired_difference(a, b, ExactMatch(), draws=199, generator=generator()) == (100.0, 100.0, 100.0, 1 / 200)


def test_exchanging_the_systems_turns_the_difference_around() -> None:
    a, b = bleu_pair(20)
    one, other = (paired_difference(*pair, Bleu(), generator=generator(5)) for pair in ((a, b), (b, a)))
    assert other == pytest.approx((-one.difference, -one.high, -one.low, one.p_value), abs=1e-9)


def test_groups_are_exchanged_whole() -> None:
    # Three groups of ten that all agree: only 8 exchanges exist, of which 2 are as extreme.
    a, b = np.ones((30, 1)), np.zeros((30, 1))
    groups = [str(n // 10) for n in range(30)]
    assert paired_difference(a, b, ExactMatch(), generator=generator(), groups=groups).p_value == 1 / 4


def test_one_group_says_nothing() -> None:
    a, b = np.ones((5, 1)), np.zeros((5, 1))
    assert paired_difference(a, b, ExactMatch(), generator=generator(), groups=["g"] * 5) == (100.0, 100.0, 100.0, 1.0)


def _two_systems(random: np.random.Generator, grouped: bool) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Two equally good systems: what is hard for one is hard for the other; grouped, each has its good and bad documents too."""
    document = np.repeat(np.arange(20), random.geometric(0.3, 20) if grouped else 1)
    levels = 0.5 * random.beta(2, 4, 20) + 0.5 * random.beta(2, 4, (2, 20))
    a, b = random.beta(6 * levels, 6 * (1 - levels))[:, document] * (random.random((2, len(document))) < 0.7)
    return a[:, None], b[:, None], list(map(str, document)) if grouped else None


@pytest.mark.parametrize("grouped", [False, True])
def test_a_true_null_is_rejected_and_missed_as_often_as_it_should_be(grouped: bool) -> None:
    """At 0.05 in 5 % of 500 trials, and the interval leaves 0 out as often, within 3 standard errors (2.9 points).

    `benchmarks/coverage.py` holds more cases to narrower bounds.
    """
    random = np.random.default_rng(3)
    rejected = missed = 0
    for trial in range(500):
        a, b, groups = _two_systems(random, grouped)
        found = paired_difference(a, b, ExactMatch(), draws=399, generator=generator(trial), groups=groups)
        rejected += found.p_value <= 0.05
        missed += not found.low <= 0.0 <= found.high
    assert 0.021 <= rejected / 500 <= 0.079
    assert 0.021 <= missed / 500 <= 0.079


def test_systems_of_different_shape_are_refused() -> None:
    # Under the tests' run-time type check the axis names refuse it first, as a TypeError.
    with pytest.raises((ValueError, TypeError), match=r"differ in shape: \(3, 1\) and \(2, 1\)|statistics_b"):
        paired_difference(np.zeros((3, 1)), np.zeros((2, 1)), ExactMatch(), generator=generator())
