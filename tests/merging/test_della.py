from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.della import Della


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def holding(matrix: Tensor) -> Factors:
    """Factors whose delta is this matrix."""
    return Factors(torch.eye(matrix.shape[1]), matrix)


def test_keep_probabilities_by_hand() -> None:
    """Each row by itself, from density - epsilon = 0.2 for the smallest to 0.8 for the largest, in steps of 0.2."""
    block = torch.tensor([[3.0, -1.0, 0.0, 2.0], [10.0, 20.0, -40.0, 30.0], [1.0, -1.0, 1.0, 0.5]])
    expected = torch.tensor([[0.8, 0.4, 0.2, 0.6], [0.2, 0.4, 0.8, 0.6], [0.8, 0.6, 0.4, 0.2]])
    torch.testing.assert_close(Della(density=0.5, epsilon=0.3).keep_probabilities(block), expected, rtol=1e-6, atol=0)


def test_of_equal_entries_the_first_counts_as_larger() -> None:
    probabilities = Della(density=0.5, epsilon=0.3).keep_probabilities(torch.ones(1, 1000))
    torch.testing.assert_close(probabilities, torch.linspace(0.8, 0.2, 1000)[None], rtol=0, atol=0)


def test_a_row_of_one_entry_has_the_density() -> None:
    assert Della(density=0.4, epsilon=0.3).keep_probabilities(torch.ones(2, 1)).tolist() == [[pytest.approx(0.4)]] * 2


def test_kept_entries_are_divided_by_their_own_probability() -> None:
    delta = torch.tensor([[1.0, -2.0, 3.0]]).repeat(400, 1)
    merged = Della(density=0.5, epsilon=0.25).merge([holding(delta)], [1.0], 3, seeded(0)).delta()
    for column, (value, probability) in enumerate([(1.0, 0.25), (-2.0, 0.5), (3.0, 0.75)]):
        got = merged[:, column]
        kept = got.abs() > 0.5
        torch.testing.assert_close(got[kept], torch.full_like(got[kept], value / probability), rtol=1e-5, atol=0)
        # 400 draws: a standard deviation of at most 0.025.
        assert abs(float(kept.float().mean()) - probability) < 0.09


def test_the_expected_value_is_the_delta() -> None:
    one = random_factors(seeded(1), 2, 6, 8, scaling=2.0)
    seeds = 150
    method = Della()
    mean = torch.stack([method.merge([one], [1.0], 6, seeded(seed)).delta() for seed in range(seeds)]).mean(0)
    deviation = one.delta().abs() * ((1 / method.keep_probabilities(one.delta()) - 1) / seeds).sqrt()
    assert bool(((mean - one.delta()).abs() <= 4.5 * deviation + 1e-5).all())


def test_election_and_mean_as_in_ties() -> None:
    """Nothing is dropped at density 1: -3 and -4 against 5 and 1, weighted."""
    factors = [holding(torch.tensor([[value, 1.0]])) for value in (5.0, -3.0, -2.0, 1.0)]
    exact = Della(density=1.0, epsilon=0.0)
    assert exact.merge(factors, [1.0, 1.0, 2.0, 1.0], 1, seeded(2)).delta().flatten().tolist() == pytest.approx([-3.5, 1.25])
    assert exact.merge(factors, [1.0] * 4, 1, seeded(2)).delta().flatten().tolist() == pytest.approx([3.0, 1.0])
    three = Della(density=1.0, epsilon=0.0, majority="frequency").merge(factors[:3], [1.0] * 3, 1, seeded(2))
    assert three.delta().flatten().tolist() == pytest.approx([-2.5, 1.0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"density": 0.1}, r"epsilon: must leave density \+- epsilon within \(0, 1\], and density is 0\.1 \(got 0\.15\)"),
        ({"density": 0.9}, r"epsilon: must leave .* density is 0\.9 \(got 0\.15\)\. Lower epsilon"),
        ({"density": 0.5, "epsilon": 0.5}, r"epsilon: must leave .* \(got 0\.5\)"),
        ({"epsilon": -0.1}, r"epsilon: must be in \[0, 1\] \(got -0\.1\)"),
    ],
)
def test_a_value_out_of_range_is_one_precise_error(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge_methods.create("della", parameters)


def test_density_and_epsilon_may_reach_one_exactly() -> None:
    delta = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    assert Della(density=0.9, epsilon=0.1).keep_probabilities(delta).max() == 1.0
