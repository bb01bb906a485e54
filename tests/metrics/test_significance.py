from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

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
    expected = (observed, np.quantile(differences, 0.025), np.quantile(differences, 0.975), p_value)
    assert paired_difference(a, b, metric, draws=draws, generator=generator(2)) == pytest.approx(expected, abs=1e-9)
    assert 2 / 61 < p_value < 0.9


def test_the_p_value_is_near_that_of_all_exchanges() -> None:
    a, b = np.array([1.0, 1, 0, 1, 1, 1, 0, 1])[:, None], np.array([0.0, 1, 0, 0, 0, 1, 1, 0])[:, None]
    observed = abs((a - b).sum())
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = float((np.abs(signs @ (a - b)[:, 0]) >= observed).mean())
    found = paired_difference(a, b, ExactMatch(), draws=20_000, generator=generator())
    assert found.difference == pytest.approx(37.5)
    assert found.p_value == pytest.approx(exact, abs=0.015)  # 4 standard errors of 20,000 draws


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
    found = paired_difference(a, b, ExactMatch(), draws=4000, generator=generator(), groups=groups)
    assert found.p_value == pytest.approx(1 / 4, abs=0.03)


def test_a_true_null_is_rejected_as_often_as_it_should_be() -> None:
    random = np.random.default_rng(3)
    rejected = 0
    for trial in range(400):
        a, b = random.random((60, 1)), random.random((60, 1))
        rejected += paired_difference(a, b, ExactMatch(), draws=199, generator=generator(trial)).p_value <= 0.05
    assert 0.02 <= rejected / 400 <= 0.08  # 3 standard errors


def test_systems_of_different_shape_are_refused() -> None:
    # Under the tests' run-time type check the axis names refuse it first, as a TypeError.
    with pytest.raises((ValueError, TypeError), match=r"differ in shape: \(3, 1\) and \(2, 1\)|statistics_b"):
        paired_difference(np.zeros((3, 1)), np.zeros((2, 1)), ExactMatch(), generator=generator())
