from __future__ import annotations

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
    assert curve.best() == pytest.approx(best_N.mean(), abs=1e-9)
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


def test_one_example_is_no_evidence() -> None:
    curve = _fit(_losses(np.array([0.45])))
    assert curve.interval(0.1, 0.8) == (0.1, 0.8)
    assert curve.is_flat(_generator())
