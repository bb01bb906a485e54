from __future__ import annotations

import numpy as np
import pytest
import torch

from pomona.control.within_rounds import is_flat

RATIOS = ((0.4, 0.3, 0.5, 0.45), (0.4, 0.2, 0.6, 0.35), (0.5, 0.45, 0.7, 0.25))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_flat_is_exact_at_its_border() -> None:
    def flat(*slopes: float) -> bool:
        return is_flat([(0.4, 0.6)], [[[1.0] * len(slopes), [1.0 + slope for slope in slopes]]], _generator())

    assert flat(0.1, 0.1, 0.1, 0.1, 0.1)  # 2 of 32 patterns reach it: 0.0625
    assert not flat(0.1, 0.1, 0.1, 0.1, 0.1, 0.1)  # 2 of 64: 0.031
    assert flat(0.1, 0.1, 0.1, 0.1, 0.1, -0.1)  # 14 of 64
    assert not flat(*[-0.1] * 6)


def test_noise_alone_is_called_flat_about_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(3)
    flags = [is_flat(RATIOS, rng.normal(2, 0.3, (3, 4, 9)).tolist(), _generator()) for _ in range(200)]
    assert 0.90 <= np.mean(flags) <= 0.99


@pytest.mark.parametrize("bend", [1.0, -1.0])
def test_a_bent_curve_without_a_slope_is_not_flat(bend: float) -> None:
    rng = np.random.default_rng(1)
    losses = [[(rng.normal(2, 0.01, 9) + bend * (p - 0.45) ** 2).tolist() for p in one] for one in RATIOS]
    assert not is_flat(RATIOS, losses, _generator())


def test_where_nothing_is_compared_it_is_flat() -> None:
    slope = [[1.0] * 8, [2.0] * 8]
    assert not is_flat([(0.4, 0.6)], [slope], _generator())
    assert is_flat([], [], _generator())
    assert is_flat([(0.4, 0.4)], [slope], _generator())
    assert is_flat([(0.4, 0.6)], [[[2.3] * 8, [2.3] * 8]], _generator())
    # Ratios that differ between rounds but not within one tell nothing: the round's level explains all.
    assert is_flat([(0.3, 0.3), (0.6, 0.6)], [slope, [[3.0] * 8, [5.0] * 8]], _generator())
    assert is_flat([(0.4, 0.6)], [[[1.0, None] * 4, [None, 2.0] * 4]], _generator())
