"""Least squares within rounds, held against the same fit the long way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pomona.control.within_rounds import Fit, compared_within_rounds, fit

RATIOS = ((0.4, 0.3, 0.5, 0.45), (0.4, 0.2, 0.6, 0.35), (0.5, 0.45, 0.7, 0.25))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _ends(ratios: Sequence[Sequence[float]]) -> tuple[float, float]:
    tried = [ratio for one in ratios for ratio in one]
    return min(tried), max(tried)


def _fit(losses: Sequence[Sequence[Sequence[float | None]]], ratios: Sequence[Sequence[float]] = RATIOS) -> Fit | None:
    """A parabola in u, from -1 at the lowest ratio to 1 at the highest."""
    low, high = _ends(ratios)
    scaled = [(2 * np.array(one) - low - high) / (high - low) for one in ratios]
    compared = compared_within_rounds(losses, [np.stack([u, u * u], axis=1) for u in scaled])
    return compared and fit(compared.y_NM, compared.X_NMD, _generator())


def _losses(best_N: np.ndarray, bend: float = 1.5, noise: float = 0.0) -> list[list[list[float]]]:
    """Each example has its own parabola, each round its own level for each example."""
    rng = np.random.default_rng(0)
    rounds = []
    for ratios in RATIOS:
        level_N = 2 + rng.normal(0, 0.5, len(best_N))
        rounds.append([(level_N + bend * (p - best_N) ** 2 + rng.normal(0, noise, len(best_N))).tolist() for p in ratios])
    return rounds


def _gaps(rng: np.random.Generator, examples: int, rounds: int) -> tuple[list[tuple[float, ...]], list[list[list[float | None]]]]:
    """Rounds of 4 measurements of which each example saw the first and two others at least; losses are noisy parabolas."""
    ratios = [tuple(rng.uniform(0.1, 0.8, 4).tolist()) for _ in range(rounds)]
    best_N = rng.uniform(0.3, 0.6, examples)
    losses: list[list[list[float | None]]] = []
    for one in ratios:
        level_N = rng.normal(2, 0.5, examples)
        seen = [[k != missing for missing in rng.integers(1, 5, examples)] for k in range(4)]
        values = [level_N + 1.5 * (p - best_N) ** 2 + rng.normal(0, 0.1, examples) for p in one]
        losses.append([[x if s else None for x, s in zip(v.tolist(), k, strict=True)] for v, k in zip(values, seen, strict=True)])
    return ratios, losses


def _with_level_of_each_round(
    ratios: list[tuple[float, ...]], losses: list[list[list[float | None]]], ends: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The same fit the long way: one least squares with a column for every example and round; and the sandwich covariance."""
    examples, columns = len(losses[0][0]), len(losses) * len(losses[0][0])
    rows, values, owner = [], [], []
    for t, (one, measured) in enumerate(zip(ratios, losses, strict=True)):
        for p, row in zip(one, measured, strict=True):
            u = (2 * p - sum(ends)) / (ends[1] - ends[0])
            for i, loss in enumerate(row):
                if loss is not None:
                    rows.append([u, u * u, *(float(c == t * examples + i) for c in range(columns))])
                    values.append(loss)
                    owner.append(i)
    X, y = np.array(rows), np.array(values)
    solution = np.linalg.lstsq(X, y, rcond=None)[0]
    inverse = np.linalg.pinv(X.T @ X)
    moves = [inverse @ X[np.array(owner) == i].T @ (y - X @ solution)[np.array(owner) == i] for i in range(examples)]
    covariance = sum(np.outer(move[:2], move[:2]) for move in moves) * examples / (examples - 1)
    return solution[:2], np.asarray(covariance)


@pytest.mark.parametrize("seed", range(4))
def test_with_gaps_it_is_one_least_squares_fit_with_a_level_for_each_example_and_round(seed: int) -> None:
    ratios, losses = _gaps(np.random.default_rng(seed), examples=7, rounds=5)
    found = _fit(losses, ratios)
    assert found is not None
    mean_D, covariance_DD = _with_level_of_each_round(ratios, losses, _ends(ratios))
    np.testing.assert_allclose(found.coefficients_ND.mean(axis=0), mean_D, rtol=1e-9)
    np.testing.assert_allclose(found.drawn_QD.mean(axis=0), mean_D, atol=4 * np.sqrt(covariance_DD.max() / 2000))
    np.testing.assert_allclose(np.cov(found.drawn_QD.T), covariance_DD, atol=0.15 * covariance_DD.max())


def test_without_gaps_it_is_each_example_s_own_least_squares_fit() -> None:
    losses = _losses(np.linspace(0.2, 0.7, 9), noise=0.2)
    y = np.concatenate([np.array(one) - np.mean(one, axis=0) for one in losses])
    u = [(np.array(one) - 0.45) / 0.25 for one in RATIOS]
    X = np.concatenate([np.stack([one - one.mean(), one**2 - (one**2).mean()], axis=1) for one in u])
    expected_ND = np.linalg.lstsq(X, y, rcond=None)[0].T
    found = _fit(losses)
    assert found is not None
    np.testing.assert_allclose(found.coefficients_ND, expected_ND, atol=1e-12)
    draws = torch.randint(9, (2000, 9), generator=_generator()).numpy()
    mean_D = expected_ND.mean(axis=0)
    drawn_QD = mean_D + (expected_ND[draws].mean(axis=1) - mean_D) * np.sqrt(9 / 8)
    np.testing.assert_allclose(found.drawn_QD, drawn_QD, atol=1e-12)


def test_an_example_that_saw_nothing_to_compare_has_no_say() -> None:
    losses = _losses(np.full(8, 0.4), noise=0.2)
    alone = _fit(losses)
    assert alone is not None
    blind = [[[*row, 9.0 if k == 0 else None] for k, row in enumerate(one)] for one in losses]
    found = _fit(blind)
    assert found is not None
    np.testing.assert_allclose(found.coefficients_ND, alone.coefficients_ND, atol=1e-12)
    np.testing.assert_allclose(found.drawn_QD, alone.drawn_QD, atol=1e-12)
    assert _fit([[[row[8]] for row in one] for one in blind]) is None


def test_examples_too_poor_for_a_fit_of_their_own_add_what_they_saw() -> None:
    # Two examples saw all of a parabola; the others two ratios each, which fit it, and alone identify no bend.
    losses: list[list[list[float | None]]] = [[[*row] for row in one] for one in _losses(np.full(6, 0.4))]
    for t, one in enumerate(losses):
        for k, row in enumerate(one):
            row[2:] = [loss if t == 0 and k in (0, i) else None for i, loss in zip((1, 2, 3, 1), row[2:], strict=True)]
    found = _fit(losses)
    assert found is not None
    assert found.coefficients_ND.mean(axis=0) == pytest.approx([0.75 * 0.05, 0.09375], abs=1e-12)
    assert found.drawn_QD.std(axis=0) == pytest.approx([0, 0], abs=1e-9)
