from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.ties import Ties

GENERATOR = torch.Generator()
FIRST, SECOND = [[4.0, -1.0], [2.0, 3.0]], [[-3.0, 5.0], [1.0, -2.0]]


def holding(rows: list[list[float]]) -> Factors:
    """Factors whose delta is these rows."""
    return Factors(torch.eye(len(rows[0])), torch.tensor(rows))


def near(merged: Factors, expected: list[list[float]] | Tensor) -> None:
    torch.testing.assert_close(merged.delta(torch.float64), torch.as_tensor(expected).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "density", "expected"),
    [
        # Half of 4 entries: [[4, 0], [0, 3]] and [[-3, 5], [0, 0]]. Signs of the sums 1, 5, 0, 3: all +.
        ([1.0, 1.0], 0.5, [[4.0, 5.0], [0.0, 3.0]]),
        # Weighted by 2 the -3 outvotes the 4.
        ([1.0, 2.0], 0.5, [[-6.0, 10.0], [0.0, 3.0]]),
        # Turned around: 4 + 3 agree, and are averaged.
        ([1.0, -1.0], 0.5, [[3.5, -5.0], [0.0, 3.0]]),
        # Nothing trimmed: the 2 and the 1 agree, 3 - 2 is +.
        ([1.0, 1.0], 1.0, [[4.0, 5.0], [1.5, 3.0]]),
        # floor(0.9 * 4) = 3: the -1 and the 1 go.
        ([1.0, 1.0], 0.9, [[4.0, 5.0], [2.0, 3.0]]),
        # floor(0.2 * 4) = 0.
        ([1.0, 1.0], 0.2, [[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_two_by_two_by_hand(weights: list[float], density: float, expected: list[list[float]]) -> None:
    near(Ties(density=density).merge([holding(FIRST), holding(SECOND)], weights, 2, GENERATOR), expected)


def test_three_adapters_by_hand_with_either_majority() -> None:
    """Entry 1: 5 against -1 and -2. Entry 2: a sum of zero counts as +. Entry 3 agrees."""
    factors = [holding([[5.0, 2.0, 1.0]]), holding([[-1.0, -2.0, 2.0]]), holding([[-2.0, 0.0, 6.0]])]
    near(Ties(density=1.0).merge(factors, [1.0] * 3, 1, GENERATOR), [[5.0, 2.0, 3.0]])
    near(Ties(density=1.0, majority="frequency").merge(factors, [1.0] * 3, 1, GENERATOR), [[-1.5, 2.0, 3.0]])


def test_equal_magnitudes_are_trimmed_by_index() -> None:
    merged = Ties(density=0.5).merge([holding([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])], [1.0], 2, GENERATOR)
    near(merged, [[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])


def dense_ties(deltas: list[Tensor], weights: list[float], density: float) -> Tensor:
    """Whole matrices, topk, and loops over the adapters only."""
    trimmed = []
    for delta, weight in zip(deltas, weights, strict=True):
        places = delta.flatten().abs().topk(int(density * delta.numel())).indices
        kept = torch.zeros(delta.numel(), dtype=delta.dtype).index_copy(0, places, delta.flatten()[places])
        trimmed.append(weight * kept.view_as(delta))
    stack = torch.stack(trimmed)
    sign = torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    agrees = stack.sign() == sign
    return (stack * agrees).sum(0) / agrees.sum(0).clamp(min=1)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.77])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.4, -1.5, 2.0]])
def test_equals_an_independent_dense_implementation(density: float, weights: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [random_factors(generator, 3, 24, 40, scaling=0.5 + place) for place in range(3)]
    expected = dense_ties([one.delta() for one in factors], weights, density)
    merged = Ties(density=density).merge(factors, weights, 24, GENERATOR)
    assert (merged.delta() - expected).norm() <= 2e-6 * expected.norm()


def test_a_module_of_several_blocks_equals_the_dense_implementation() -> None:
    """600 x 700: two blocks, and the block Krylov iteration."""
    generator = torch.Generator().manual_seed(1)
    factors = [random_factors(generator, 4, 700, 600) for _ in range(2)]
    expected = dense_ties([one.delta() for one in factors], [1.0, 0.6], 0.2).double()
    merged = Ties().merge(factors, [1.0, 0.6], None, GENERATOR)
    optimal = torch.linalg.eigvalsh(expected @ expected.T)[:-4].sum().sqrt()
    assert merged.rank == 4
    assert (merged.delta(torch.float64) - expected).norm() <= optimal * (1 + 1e-4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"density": 0.0}, r"density: must be in \(0, 1\] \(got 0\.0\)"),
        ({"density": 1.5}, r"density: must be in \(0, 1\] \(got 1\.5\)"),
        ({"density": float("nan")}, r"density: must be in \(0, 1\] \(got nan\)"),
        ({"density": True}, r"density: must be in \(0, 1\] \(got True\)"),
    ],
)
def test_a_value_out_of_range_is_one_precise_error(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge_methods.create("ties", parameters)
