from __future__ import annotations

import math

import numpy as np
import pytest

from pomona.control.curve_model import Noise, Readings, estimate_noise, lasting_features, readings

LOW, HIGH = 0.1, 0.8
RATIOS = [(0.0, 0.3, 0.55, 0.8), (0.0, 0.2, 0.5, 0.7)]


def _read(rng: np.random.Generator, n: int, deviation: float, growth: float, a: float, b: float) -> tuple[Readings, ...]:
    slopes, bends = rng.normal(0, a, n), rng.normal(0, b, n)
    losses = []
    for ratios in RATIOS:
        p = np.array(ratios)[:, None]
        q = (p - 0.45) / 0.35
        noise = rng.normal(0, deviation, (len(ratios), n)) * (1 + growth * p)
        losses.append((rng.normal(2, 0.5, n) + p**2 + slopes * q + bends * (q * q - 0.5) + noise).tolist())
    return readings(RATIOS, losses)


@pytest.mark.parametrize(
    ("deviation", "growth", "a", "b"),
    [(0.05, 0.0, 0.0, 0.0), (0.03, 8.0, 0.2, 0.1), (0.05, 2.0, 0.05, 0.2), (0.001, 0.0, 0.3, 0.0)],
)
def test_of_many_examples_the_noise_is_found(deviation: float, growth: float, a: float, b: float) -> None:
    noise = estimate_noise(_read(np.random.default_rng(3), 4000, deviation, growth, a, b), LOW, HIGH)
    assert noise.growth == growth
    assert noise.variance == pytest.approx(deviation**2, rel=0.25)  # the shares of lasting effects are tried in steps of 3.2
    assert noise.freedom == 3999
    # Half a step of the shares, and what the variance may be off.
    for found, true in zip(noise.lasting, (a, b), strict=True):
        assert true**2 / 2.2 <= found <= true**2 * 2.2 if true else found <= 0.2 * deviation**2


def test_what_is_found_is_the_likeliest_by_a_dense_normal_density() -> None:
    (one,) = _read(np.random.default_rng(4), 12, 0.05, 2.0, 0.1, 0.05)
    noise = estimate_noise((one,), LOW, HIGH)

    def log_likelihood(other: Noise) -> float:
        features = one.contrasts @ lasting_features(one.ratios, LOW, HIGH)
        covariance = (
            one.contrasts @ np.diag(other.probe(one.ratios)) @ one.contrasts.T + features @ np.diag(other.lasting) @ features.T
        )
        scatter = np.trace(np.linalg.solve(covariance, one.scatter))
        return float(-0.5 * ((one.n - 1) * np.linalg.slogdet(2 * np.pi * covariance)[1] + scatter))

    best = log_likelihood(noise)
    for growth in (0.0, 2.0, 8.0):
        for factor in (0.5, 0.8, 1.25, 2.0):
            assert log_likelihood(noise._replace(growth=growth, variance=noise.variance * factor)) <= best + 1e-9
    for share in ((0.0, 1.0), (10.0, 1.0), (1.0, 0.0), (1.0, 10.0)):
        assert log_likelihood(noise._replace(lasting=noise.lasting * np.array(share))) <= best + 1e-9


def test_of_a_single_example_all_may_be_noise() -> None:
    found = readings([(0.0, 0.4)], [[[1.0], [1.2]]])
    noise = estimate_noise(found, LOW, HIGH)
    assert noise.variance == pytest.approx(0.2**2 / 2)
    assert (noise.freedom, noise.growth, noise.lasting.tolist()) == (1, 0.0, [0.0, 0.0])


def test_equal_examples_leave_a_noise_above_zero() -> None:
    noise = estimate_noise(readings([(0.0, 0.4)], [[[1.0, 2.0], [1.2, 2.2]]]), LOW, HIGH)
    assert noise.variance == pytest.approx((1e-3 * 0.2 / math.sqrt(2)) ** 2)


def test_probes_at_higher_ratios_are_noisier_where_the_noise_grows() -> None:
    noise = Noise(0.01, 2.0, np.zeros(2), 5)
    assert noise.probe(np.array([0.0, 0.5])).tolist() == pytest.approx([0.01, 0.04])


def test_lasting_effects_turn_in_the_middle_of_the_range() -> None:
    assert lasting_features(np.array([0.1, 0.45, 0.8]), LOW, HIGH).ravel() == pytest.approx([-1, 0.5, 0, -0.5, 1, 0.5])
