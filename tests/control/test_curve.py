from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from pomona.control.curve import Curve, fit_curve

RATIOS = ((0.4, 0.3, 0.5, 0.45), (0.4, 0.2, 0.6, 0.35), (0.5, 0.45, 0.7, 0.25))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _losses(best_N: np.ndarray, bend: float = 1.5, noise: float = 0.0) -> list[list[list[float]]]:
    """Each example has its own parabola, each round its own level for each example."""
    rng = np.random.default_rng(0)
    rounds = []
    for ratios in RATIOS:
        level_N = 2 + rng.normal(0, 0.5, len(best_N))
        rounds.append([(level_N + bend * (p - best_N) ** 2 + rng.normal(0, noise, len(best_N))).tolist() for p in ratios])
    return rounds


def _fit(losses: list[list[list[float]]], ratios: tuple[tuple[float, ...], ...] = RATIOS) -> Curve:
    curve = fit_curve(ratios, losses, _generator())
    assert curve is not None
    return curve


def test_noiseless_parabolas_are_recovered_whatever_the_round_s_level() -> None:
    best_N = np.array([0.3, 0.4, 0.5, 0.6, 0.35, 0.45, 0.55, 0.25])
    curve = _fit(_losses(best_N))
    assert (curve.low, curve.high) == (0.2, 0.7)
    assert curve.best() == pytest.approx(best_N.mean(), abs=3e-3)  # of 2,000 draws whose optimum deviates by 0.044
    assert _fit(_losses(np.full(8, 0.42))).best() == pytest.approx(0.42, abs=1e-9)
    # f = 1.5 (p - b)^2 with p = 0.45 + 0.25 u: slope 1.5 * 2 * (0.45 - b) * 0.25, bend 1.5 * 0.25^2
    expected_ND = np.stack([0.75 * (0.45 - best_N), np.full(8, 0.09375)], axis=1)
    np.testing.assert_allclose(curve.coefficients_ND, expected_ND, atol=1e-12)


def test_the_interval_is_that_of_the_mean_of_the_examples_optima() -> None:
    best_N = np.array([0.3, 0.4, 0.5, 0.6, 0.35, 0.45, 0.55, 0.25])
    low, high = _fit(_losses(best_N)).interval(0.1, 0.8)
    half_width = 1.96 * best_N.std(ddof=1) / np.sqrt(8)  # with one bend the best ratio is the mean of the examples' own
    assert low == pytest.approx(best_N.mean() - half_width, abs=0.01)
    assert high == pytest.approx(best_N.mean() + half_width, abs=0.01)


def test_points_are_rewards_relative_to_the_answer() -> None:
    curve = _fit(_losses(np.array([0.4, 0.5, 0.45, 0.45, 0.5, 0.4])))
    points = curve.points(0.45)
    assert [p for p, *_ in points] == pytest.approx(np.linspace(0.2, 0.7, 25))
    for p, reward, low, high in points:
        assert reward == pytest.approx(-1.5 * (p - 0.45) ** 2, abs=1e-9)
        assert low <= reward <= high
    assert points[12][1:] == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_the_answer_stays_within_the_ratios_tried_and_the_interval_says_that_it_may_lie_beyond() -> None:
    rising = _fit(_losses(np.full(8, 0.05), noise=0.01))
    assert rising.best() == 0.2
    assert rising.interval(0.1, 0.8)[0] == 0.1
    falling = _fit(_losses(np.full(8, 0.95), noise=0.01))
    assert falling.best() == pytest.approx(0.7)
    assert falling.interval(0.1, 0.8)[1] == 0.8


def test_a_curve_that_opens_downward_has_its_minimum_at_the_better_end() -> None:
    assert _fit(_losses(np.full(8, 0.5), bend=-1.0)).best() == 0.2
    assert _fit(_losses(np.full(8, 0.4), bend=-1.0)).best() == pytest.approx(0.7)


@pytest.mark.parametrize("up", [1, 2, 3])
def test_where_the_examples_disagree_the_answer_is_the_mean_of_the_draws_minima(up: int) -> None:
    """Of four examples some rise from 0.4 to 0.6 and the others fall as much; every one of the 256 draws counts once."""
    slope_N = np.array([0.5] * up + [-0.5] * (4 - up))
    losses = [[np.ones(4).tolist(), (1 + slope_N).tolist()]]
    minima = []
    for draw in itertools.product(range(4), repeat=4):
        slope = slope_N.mean() + (slope_N[list(draw)].mean() - slope_N.mean()) * math.sqrt(4 / 3)
        minima.append(0.4 if slope > 1e-12 else 0.6 if slope < -1e-12 else 0.5)
    assert _fit(losses, ((0.4, 0.6),)).best() == pytest.approx(np.mean(minima), abs=0.008)
    assert 0.4 < np.mean(minima) < 0.6


def test_few_ratios_give_a_line_and_none_gives_nothing() -> None:
    line = _fit([[[1.0, 2.0], [1.5, 2.25]]], ((0.4, 0.6),))
    assert line.coefficients_ND.tolist() == [[pytest.approx(0.25)], [pytest.approx(0.125)]]
    assert line.best() == 0.4
    assert fit_curve([(0.4, 0.4)], [[[1.0, 2.0], [1.5, 2.25]]], _generator()) is None
    assert fit_curve([], [], _generator()) is None
    assert fit_curve(RATIOS, [[[2.3, 0.1 + 0.2]] * 4] * 3, _generator()) is None
    # Ratios that differ between rounds but not within one tell nothing: the round's level explains all.
    assert fit_curve([(0.3, 0.3), (0.6, 0.6)], [[[1.0], [1.1]], [[2.0], [2.1]]], _generator()) is None


def test_flat_is_exact_at_its_border() -> None:
    ratios = (0.4, 0.6)

    def flat(*slopes: float) -> bool:
        losses = [[[1.0] * len(slopes), [1.0 + slope for slope in slopes]]]
        return _fit(losses, (ratios,)).is_flat(_generator())

    assert flat(0.1, 0.1, 0.1, 0.1, 0.1)  # 2 of 32 patterns reach it: 0.0625
    assert not flat(0.1, 0.1, 0.1, 0.1, 0.1, 0.1)  # 2 of 64: 0.031
    assert flat(0.1, 0.1, 0.1, 0.1, 0.1, -0.1)  # 14 of 64
    assert not flat(*[-0.1] * 6)


def test_noise_alone_is_called_flat_about_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(3)
    flags = [_fit(rng.normal(2, 0.3, (3, 4, 9)).tolist()).is_flat(_generator()) for _ in range(200)]
    assert 0.90 <= np.mean(flags) <= 0.99


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
    ratios: list[tuple[float, ...]], losses: list[list[list[float | None]]], curve: Curve
) -> tuple[np.ndarray, np.ndarray]:
    """The same fit the long way: one least squares with a column for every example and round; and the sandwich covariance."""
    examples, columns = len(losses[0][0]), len(losses) * len(losses[0][0])
    rows, values, owner = [], [], []
    for t, (one, measured) in enumerate(zip(ratios, losses, strict=True)):
        for p, row in zip(one, measured, strict=True):
            u = (2 * p - curve.low - curve.high) / (curve.high - curve.low)
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
    curve = fit_curve(ratios, losses, _generator())
    assert curve is not None
    mean_D, covariance_DD = _with_level_of_each_round(ratios, losses, curve)
    np.testing.assert_allclose(curve.mean, mean_D, rtol=1e-9)
    np.testing.assert_allclose(curve.drawn_QD.mean(axis=0), mean_D, atol=4 * np.sqrt(covariance_DD.max() / 2000))
    np.testing.assert_allclose(np.cov(curve.drawn_QD.T), covariance_DD, atol=0.15 * covariance_DD.max())


def test_without_gaps_it_is_each_example_s_own_least_squares_fit() -> None:
    losses = _losses(np.linspace(0.2, 0.7, 9), noise=0.2)
    y = np.concatenate([np.array(one) - np.mean(one, axis=0) for one in losses])
    u = [(np.array(one) - 0.45) / 0.25 for one in RATIOS]
    X = np.concatenate([np.stack([one - one.mean(), one**2 - (one**2).mean()], axis=1) for one in u])
    expected_ND = np.linalg.lstsq(X, y, rcond=None)[0].T
    curve = _fit(losses)
    np.testing.assert_allclose(curve.coefficients_ND, expected_ND, atol=1e-12)
    draws = torch.randint(9, (2000, 9), generator=_generator()).numpy()
    mean_D = expected_ND.mean(axis=0)
    drawn_QD = mean_D + (expected_ND[draws].mean(axis=1) - mean_D) * np.sqrt(9 / 8)
    np.testing.assert_allclose(curve.drawn_QD, drawn_QD, atol=1e-12)


def test_an_example_that_saw_nothing_to_compare_has_no_say() -> None:
    losses = _losses(np.full(8, 0.4), noise=0.2)
    alone = _fit(losses)
    blind = [[[*row, 9.0 if k == 0 else None] for k, row in enumerate(one)] for one in losses]
    curve = fit_curve(RATIOS, blind, _generator())
    assert curve is not None
    np.testing.assert_allclose(curve.coefficients_ND, alone.coefficients_ND, atol=1e-12)
    np.testing.assert_allclose(curve.drawn_QD, alone.drawn_QD, atol=1e-12)
    assert fit_curve(RATIOS, [[[row[8]] for row in one] for one in blind], _generator()) is None


def test_examples_too_poor_for_a_fit_of_their_own_add_what_they_saw() -> None:
    # Two examples saw all of a parabola; the others two ratios each, which fit it, and alone identify no bend.
    losses: list[list[list[float | None]]] = [[[*row] for row in one] for one in _losses(np.full(6, 0.4))]
    for t, one in enumerate(losses):
        for k, row in enumerate(one):
            row[2:] = [loss if t == 0 and k in (0, i) else None for i, loss in zip((1, 2, 3, 1), row[2:], strict=True)]
    curve = fit_curve(RATIOS, losses, _generator())
    assert curve is not None
    assert curve.mean == pytest.approx([0.75 * 0.05, 0.09375], abs=1e-12)
    assert curve.interval(0.1, 0.8) == pytest.approx((0.4, 0.4), abs=1e-9)


def test_with_gaps_the_interval_holds_the_optimum_as_often_as_it_says() -> None:
    held = 0
    for seed in range(60):
        ratios, losses = _gaps(np.random.default_rng(seed), examples=12, rounds=6)
        curve = fit_curve(ratios, losses, _generator())
        assert curve is not None
        low, high = curve.interval(0.1, 0.8)
        held += low <= 0.45 <= high
    assert held >= 51


def test_one_example_is_no_evidence() -> None:
    curve = _fit(_losses(np.array([0.45])))
    assert curve.interval(0.1, 0.8) == (0.1, 0.8)
    assert curve.is_flat(_generator())
