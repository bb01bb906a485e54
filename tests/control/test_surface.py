"""The fitted surface: exact where the losses are, modest where rounds are few, and its intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pomona.control.surface import Surface, fit_surface


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


SLOPES_AND_BENDS = np.array([0.5, -1.0, 0.2, 1.0, 2.0, 0.5])  # b_k, then c_k, over p itself
OPTIMA = (-0.25, 0.25, -0.2)


def measured(
    slopes_and_bends: np.ndarray, rounds: int, *, noise: float = 0.0, examples: int = 8, candidates: int = 3, seed: int = 0
) -> tuple[list[list[tuple[float, ...]]], list[list[list[float]]]]:
    """Ratios and losses of rounds, each with a level of its own, of a surface `sum_k b_k p_k + c_k p_k^2`."""
    rng, groups = np.random.default_rng(seed), len(slopes_and_bends) // 2
    ratios = rng.uniform(-1, 1, (rounds, candidates + 1, groups))
    cost = np.concatenate([ratios, ratios**2], axis=2) @ slopes_and_bends
    own = rng.normal(1, 0.1, (rounds, 1, examples)) + cost[..., None] + noise * rng.normal(size=(*cost.shape, examples))
    return [list(map(tuple, one)) for one in ratios.tolist()], own.tolist()


def fitted(*arguments: object, **options: object) -> Surface:
    found = fit_surface(*measured(*arguments, **options), generator())  # pyright: ignore[reportArgumentType]
    assert found is not None
    return found


def test_without_noise_every_group_s_optimum_is_exact() -> None:
    surface = fitted(SLOPES_AND_BENDS, 6)
    assert surface.best() == pytest.approx(OPTIMA, abs=1e-9)
    for (low, high), best in zip(surface.intervals(-1, 1), OPTIMA, strict=True):
        assert low == pytest.approx(best, abs=1e-9) == high
    assert not surface.is_flat(generator())


def test_what_one_ratio_for_all_would_gain_is_relative_to_the_groups_ratios() -> None:
    surface = fitted(SLOPES_AND_BENDS, 6)
    points = surface.points(surface.best())
    assert len(points) == 25
    slopes, bends = np.split(SLOPES_AND_BENDS, 2)
    least = float(sum(b * p + c * p * p for b, c, p in zip(slopes, bends, OPTIMA, strict=True)))
    for point in points:
        ratio = point.prune_ratio
        assert point.reward == pytest.approx(least - (slopes.sum() * ratio + bends.sum() * ratio**2), abs=1e-9)
        assert point.low == pytest.approx(point.reward, abs=1e-9) == point.high
    assert max(point.reward for point in points) < 0


def test_groups_that_do_not_differ_are_given_one_ratio() -> None:
    """With noise, so that a model with more coefficients foretells the other rounds worse."""
    alike = np.array([-0.4, -0.4, -0.4, 1.0, 1.0, 1.0])
    same = [len(set(np.round(fitted(alike, 6, noise=0.5, seed=seed).best(), 9))) == 1 for seed in range(20)]
    assert sum(same) >= 12
    apart = [len(set(np.round(fitted(SLOPES_AND_BENDS, 6, noise=0.05, seed=seed).best(), 9))) == 3 for seed in range(20)]
    assert all(apart)


def test_intervals_hold_the_optimum_about_as_often_as_they_say() -> None:
    """They leave out that the model is chosen, so a little less often than 95 times in 100."""
    held = 0
    for seed in range(100):
        surface = fitted(SLOPES_AND_BENDS, 12, noise=0.3, examples=16, seed=seed)
        held += sum(low <= best <= high for (low, high), best in zip(surface.intervals(-1, 1), OPTIMA, strict=True))
    assert 270 <= held <= 298


def test_an_interval_at_the_edge_of_what_was_tried_goes_on_to_the_end_of_the_range() -> None:
    surface = fitted(np.array([-3.0, 1.0, 0.1, 1.0]), 6)
    assert surface.best()[0] == pytest.approx(surface.low + (surface.tried_K2[0, 1] + 1) / 2 * (surface.high - surface.low))
    (low, high), _ = surface.intervals(-1.5, 1.5)
    assert high == 1.5
    assert low == pytest.approx(surface.best()[0])


def test_a_group_s_optimum_is_sought_where_that_group_was_tried() -> None:
    """The other group was tried farther out, and the first one's parabola turns there."""
    ratios, _ = measured(np.zeros(4), 6)
    ratios = [[(p / 2, q) for p, q in one] for one in ratios]
    losses = [[[(p - 0.8) ** 2 + q * q] for p, q in one] for one in ratios]
    surface = fit_surface(ratios, losses, generator())
    assert surface is not None
    highest = max(p for one in ratios for p, _ in one)
    assert highest < 0.6
    assert surface.best() == pytest.approx((highest, 0.0), abs=1e-9)


def test_a_single_example_tells_no_interval() -> None:
    assert fitted(SLOPES_AND_BENDS, 6, examples=1).intervals(0.1, 0.8) == [(0.1, 0.8)] * 3


def test_noise_alone_is_called_flat_about_as_often_as_the_level_says() -> None:
    flat = sum(fitted(np.zeros(4), 5, noise=1.0, seed=seed).is_flat(generator()) for seed in range(200))
    assert 178 <= flat < 200


def test_gaps_are_no_losses() -> None:
    ratios, losses = measured(SLOPES_AND_BENDS, 8)
    gaps = [[[None if (i + k) % 5 == 0 else loss for i, loss in enumerate(row)] for k, row in enumerate(one)] for one in losses]
    surface = fit_surface(ratios, gaps, generator())
    assert surface is not None
    assert surface.best() == pytest.approx(OPTIMA, abs=1e-9)


@pytest.mark.parametrize(
    ("ratios", "losses"),
    [
        ([], []),
        ([[(0.4, 0.4), (0.4, 0.4)]], [[[1.0], [1.2]]]),
        ([[(0.4, 0.4), (0.5, 0.2)]], [[[1.0], [1.0]]]),
        ([[(0.4, 0.4), (0.5, 0.2)]], [[[1.0, None], [None, 1.5]]]),
    ],
    ids=["no round", "one ratio", "no difference", "nothing compared"],
)
def test_where_nothing_can_be_said_there_is_no_surface(ratios: list, losses: list) -> None:
    assert fit_surface(ratios, losses, generator()) is None


def test_where_a_parabola_is_identified_none_is_a_line() -> None:
    """On noise a line often foretells best, and would put every answer at the end of what was tried."""
    for seed in range(20):
        slopes, bends = np.split(fitted(np.zeros(4), 3, noise=1.0, seed=seed).coefficients_N2K.mean(axis=0), 2)
        assert (slopes != 0).all()
        assert (bends != 0).all()


def test_one_round_is_a_line_for_all_groups() -> None:
    surface = fit_surface([[(0.4, 0.4), (0.6, 0.5)]], [[[1.0, 1.1], [0.9, 1.0]]], generator())
    assert surface is not None
    assert surface.best() == pytest.approx((0.6, 0.5))
