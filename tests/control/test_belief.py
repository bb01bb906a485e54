from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pomona.control.belief import Belief, believe, shortfall
from pomona.control.curve_model import all_shapes, features, lasting_features, readings

LOW, HIGH = 0.1, 0.8
RATIOS = [(0.0, 0.333, 0.567, 0.8), (0.0, 0.2, 0.45, 0.7), (0.0, 0.15, 0.5, 0.6)]


def _losses(
    truth: Callable[[float], float], seed: int = 0, n: int = 16, noise: float = 0.0, ratios: list[tuple[float, ...]] = RATIOS
) -> list[list[list[float]]]:
    rng = np.random.default_rng(seed)
    found = []
    for one in ratios:
        level_N = rng.normal(2, 0.5, n)
        found.append([(level_N + truth(p) + rng.normal(0, noise, n)).tolist() for p in one])
    return found


def _believe(truth: Callable[[float], float], **how: float) -> Belief:
    belief = believe(RATIOS, _losses(truth, **how), LOW, HIGH, 7)  # pyright: ignore[reportArgumentType]
    assert belief is not None
    return belief


def _cliff(at: float) -> Callable[[float], float]:
    return lambda p: -0.1 * p + max(0.0, p - at)


@pytest.mark.parametrize("best", [0.25, 0.42, 0.7])
def test_a_parabola_is_lowest_where_it_turns(best: float) -> None:
    belief = _believe(lambda p: 1.5 * (p - best) ** 2, noise=0.02)
    assert belief.best() == pytest.approx(best, abs=0.02)
    low, high = belief.interval()
    assert low <= best <= high
    assert high - low < 0.1


@pytest.mark.parametrize("at", [0.4, 0.52, 0.65])
def test_a_cliff_is_lowest_where_it_begins_and_the_answer_keeps_to_its_safe_side(at: float) -> None:
    belief = _believe(_cliff(at), noise=0.01)
    low, high = belief.interval()
    assert low - 0.01 <= at <= high + 0.01  # cliffs are placed in steps of 0.008
    assert high - low < 0.2
    assert at - 0.1 < belief.best() < at + 0.02


@pytest.mark.parametrize(("slope", "end"), [(-0.3, HIGH), (0.3, LOW)])
def test_a_line_is_lowest_at_its_end(slope: float, end: float) -> None:
    belief = _believe(lambda p: slope * p, noise=0.01)
    assert belief.best() == end
    assert end in belief.interval()


def test_where_ratios_are_alike_any_may_be_the_best() -> None:
    low, high = _believe(lambda p: 0.0, noise=0.05).interval()
    assert low < 0.2
    assert high > 0.7


def test_the_answer_does_not_depend_on_the_unit_of_the_reward_nor_on_the_examples_order() -> None:
    losses = _losses(_cliff(0.5), noise=0.03)
    belief = believe(RATIOS, losses, LOW, HIGH, 7)
    scaled = believe(RATIOS, [[[100 * loss for loss in row] for row in one] for one in losses], LOW, HIGH, 7)
    turned = believe(RATIOS, [[row[::-1] for row in one] for one in losses], LOW, HIGH, 7)
    assert belief is not None
    assert scaled is not None
    assert turned is not None
    assert scaled.best() == belief.best() == turned.best()
    assert scaled.interval() == pytest.approx(belief.interval(), abs=0.006)
    assert turned.interval() == pytest.approx(belief.interval(), abs=0.006)
    assert [100 * point.reward for point in belief.points(0.4)] == pytest.approx(
        [point.reward for point in scaled.points(0.4)], rel=1e-6
    )


def test_lasting_differences_between_examples_are_not_averaged_out_by_rounds() -> None:
    """Sixteen examples whose own optima spread by 0.2: many noiseless rounds leave the standard error of their mean."""
    rng = np.random.default_rng(2)
    best_N = 0.45 + rng.normal(0, 0.1, 16)
    ratios = [(0.0, *rng.uniform(0.1, 0.8, 3).tolist()) for _ in range(30)]
    losses = [[((p - best_N) ** 2).tolist() for p in one] for one in ratios]
    belief = believe(ratios, losses, LOW, HIGH, 7)
    assert belief is not None
    low, high = belief.interval()
    error = best_N.std(ddof=1) / 4
    assert 2.5 * error < high - low < 6 * error
    assert belief.best() == pytest.approx(best_N.mean(), abs=0.01)


def test_examples_that_were_stopped_halfway_count_with_what_they_saw() -> None:
    losses = _losses(lambda p: 1.5 * (p - 0.4) ** 2, noise=0.01)
    half = [[row if index else [*row[:8], *[None] * 8] for index, row in enumerate(one[::-1])][::-1] for one in losses]
    belief = believe(RATIOS, half, LOW, HIGH, 7)
    assert belief is not None
    assert belief.best() == pytest.approx(0.4, abs=0.02)


def test_of_a_single_example_the_interval_is_the_range() -> None:
    belief = _believe(lambda p: (p - 0.4) ** 2, n=1)
    assert belief.interval() == (LOW, HIGH)
    assert LOW <= belief.best() <= HIGH


def test_where_nothing_is_compared_nothing_is_believed() -> None:
    assert believe([], [], LOW, HIGH, 7) is None
    assert believe([(0.4, 0.5)], [[[1.0, 2.0], [1.0, 2.0]]], LOW, HIGH, 7) is None


def test_points_run_over_what_was_tried_and_are_gains_over_the_ratio() -> None:
    points = _believe(lambda p: 1.5 * (p - 0.4) ** 2, noise=0.005).points(0.4)
    assert [point.prune_ratio for point in points] == pytest.approx(np.linspace(0.0, 0.8, 25))
    for point in points:
        assert point.reward == pytest.approx(-1.5 * (point.prune_ratio - 0.4) ** 2, abs=0.02)
        assert point.low <= point.reward <= point.high


def test_shortfall_is_the_share_of_each_curve_s_spread() -> None:
    curves = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [0.3, 0.1, 0.2]])
    np.testing.assert_allclose(shortfall(curves), [[0, 1, 0.5], [0, 0, 0], [1, 0, 0.5]])


def test_features_by_hand() -> None:
    found = features(np.array([0.0, 0.4, 0.8]), 0.8)
    assert found[:, 0].tolist() == [-1, 0, 1]
    assert found[:, 1].tolist() == [1, 0, 1]
    hinges, squares, jumps = np.split(found[:, 2:], 3, axis=1)
    assert hinges[2, 0] == pytest.approx(2 - 2 * 0.05)  # the first cliff begins at 5 % of the highest ratio
    assert hinges[1, 0] == pytest.approx(0.9)
    assert not hinges[0].any()
    np.testing.assert_allclose(squares, hinges**2)
    np.testing.assert_array_equal(jumps, hinges > 0)


def test_every_shape_is_listed_once_and_kinds_share_their_weight() -> None:
    listed = [tuple(sorted(row)) for shapes in all_shapes() for row in shapes.features.tolist()]
    assert len(listed) == len(set(listed))
    total = sum(float(np.exp(shapes.log_weight).sum()) for shapes in all_shapes())
    assert total == pytest.approx(1 + 1 + 3 + 4 + 0.5 + 0.5 + 0.5 + 1.5)


def test_shapes_count_by_their_evidence_as_a_dense_student_density_has_it() -> None:
    """The share of flat, straight and parabolic curves among the draws, before places are weighed, from dense densities."""
    from pomona.control import belief as room

    losses = _losses(lambda p: 0.05 * p, noise=0.05, seed=3)
    (one,) = found = readings(RATIOS, losses)
    noise = room.estimate_noise(found, LOW, HIGH)
    drawn_SF = room._draw_coefficients(found, noise, LOW, HIGH, np.random.default_rng(0))
    used = drawn_SF != 0
    counts = [
        int((~used.any(axis=1)).sum()),
        int((used[:, 0] & ~used[:, 1:].any(axis=1)).sum()),
        int((used[:, :2].all(axis=1) & ~used[:, 2:].any(axis=1)).sum()),
    ]

    C = one.contrasts
    lasting = C @ lasting_features(one.ratios, LOW, HIGH)
    base = (C @ np.diag(noise.probe(one.ratios)) @ C.T + lasting @ np.diag(noise.lasting) @ lasting.T) / one.n
    X = C @ features(one.ratios, HIGH)
    sizes = room._prior_deviations(found, noise)

    def density(columns: list[int]) -> float:
        total = 0.0
        for size in sizes:
            covariance = base + size**2 * X[:, columns] @ X[:, columns].T
            misfit = float(one.mean @ np.linalg.solve(covariance, one.mean))
            log = -0.5 * np.linalg.slogdet(covariance)[1] - (noise.freedom + len(C)) / 2 * math.log1p(misfit / noise.freedom)
            total += math.exp(log) / len(sizes)
        return total

    flat, line, parabola = density([]), density([0]), density([0, 1])
    assert counts[0] / counts[1] == pytest.approx(flat / line, rel=0.03)
    assert counts[1] / counts[2] == pytest.approx(line / (3 * parabola), rel=0.03)


def test_draws_differ_by_seed_and_are_the_same_for_one() -> None:
    losses = _losses(_cliff(0.5), noise=0.03)
    first, again, other = (believe(RATIOS, losses, LOW, HIGH, seed) for seed in (7, 7, 8))
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.coefficients_SF, again.coefficients_SF)
    assert (first.coefficients_SF != other.coefficients_SF).any()
