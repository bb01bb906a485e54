from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import Q0, Q1, V0, random_adapter, random_factors
from torch import Tensor

from pomona.adapters import Adapter, Factors
from pomona.adapters.measure import Measured
from pomona.adapters.overlap import compare, compare_adapters, compare_all


def mean_squared_cosine(X_NR: Tensor, Y_NP: Tensor) -> float:
    """From the definition: orthonormal bases by SVD, principal angles by another."""

    def basis(matrix: Tensor) -> Tensor:
        U, S, _ = torch.linalg.svd(torch.nn.functional.normalize(matrix.double(), dim=0), full_matrices=False)
        return U[:, (S / S[0]) > 1e-6]

    cosines = torch.linalg.svdvals(basis(X_NR).T @ basis(Y_NP))
    return float(cosines.square().mean())


@given(ranks=st.tuples(st.integers(1, 14), st.integers(1, 14)), seed=st.integers(0, 99), scaling=st.sampled_from([-2.0, 0.0, 0.3]))
@settings(max_examples=50, deadline=None)
def test_figures_equal_their_definitions(ranks: tuple[int, int], seed: int, scaling: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    one = random_factors(generator, ranks[0], scaling=0.7)
    two = random_factors(generator, ranks[1], scaling=scaling)
    two.A[0] *= 1e5
    likeness = compare(Measured(one), Measured(two))
    inner = (one.delta(torch.float64) * two.delta(torch.float64)).sum()
    size = one.delta(torch.float64).norm() * two.delta(torch.float64).norm()
    assert likeness.inner == pytest.approx(float(inner), abs=1e-12 * float(size))
    assert likeness.input_overlap == pytest.approx(mean_squared_cosine(one.A.T, two.A.T), abs=1e-6)
    assert likeness.output_overlap == pytest.approx(mean_squared_cosine(one.B, two.B), abs=1e-6)


def test_overlap_by_hand() -> None:
    # Rows (1, 0, 0) and (3, 4, 0) / 5: one angle of cosine 3/5. Columns e1, e2 and e2, e3: angles 0 and 90 degrees.
    one = Factors(torch.tensor([[1.0, 0, 0], [2.0, 0, 0]]), torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    two = Factors(torch.tensor([[3.0, 4, 0], [0.0, 0, 0]]), torch.tensor([[0.0, 0], [1, 1], [0, 1]]))
    likeness = compare(Measured(one), Measured(two))
    assert likeness.input_overlap == pytest.approx(9 / 25, rel=1e-9)
    assert likeness.output_overlap == pytest.approx(1 / 2, rel=1e-9)


def test_a_space_within_the_other_overlaps_wholly() -> None:
    generator = torch.Generator().manual_seed(0)
    large = random_factors(generator, 6)
    small = Factors(torch.randn(2, 6, generator=generator) @ large.A, large.B[:, :2])
    likeness = compare(Measured(large), Measured(small))
    assert (likeness.input_overlap, likeness.output_overlap) == pytest.approx((1.0, 1.0), abs=1e-9)


def test_an_empty_space_has_no_overlap() -> None:
    one = random_factors(torch.Generator().manual_seed(0), 3)
    for zero in (Factors(one.A, torch.zeros(20, 3)), Factors(one.A[:0], one.B[:, :0])):
        assert compare(Measured(one), Measured(zero)).output_overlap is None


def test_two_adapters() -> None:
    """Cosines over all modules, where one that is lacking counts as zero, and over the shared ones."""
    first = random_adapter(0, modules=[Q0, V0], scaling=0.5)
    opposite = first[Q0]
    second = Adapter({Q0: Factors(opposite.A, -3 * opposite.B), Q1: random_adapter(1)[Q1]})
    compared = compare_adapters(first, second)
    (shared,) = compared["modules"]  # type: ignore[misc]
    exact = {"cosine": pytest.approx(-1.0), "input_overlap": pytest.approx(1.0), "output_overlap": pytest.approx(1.0)}
    assert shared == {"module": Q0, **exact}

    def norm(adapter: Adapter) -> float:
        return math.sqrt(sum(float(adapter[module].delta(torch.float64).square().sum()) for module in adapter))

    inner = float((first[Q0].delta(torch.float64) * second[Q0].delta(torch.float64)).sum())
    total = compared["total"]
    assert total == {
        "shared_modules": 1,
        "other_shape": 0,
        "cosine": pytest.approx(inner / norm(first) / norm(second), rel=1e-9),
        "shared_cosine": pytest.approx(-1.0),
        "input_overlap": pytest.approx(1.0),
        "output_overlap": pytest.approx(1.0),
    }


def test_the_order_of_the_two_does_not_matter() -> None:
    one, two = random_adapter(0, modules=[Q0, V0]), random_adapter(1, modules=[V0, Q1], rank=7)
    assert compare_adapters(one, two)["total"] == pytest.approx(compare_adapters(two, one)["total"], rel=1e-9)


NOTHING = {"cosine": None, "shared_cosine": None, "input_overlap": None, "output_overlap": None}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda one: Adapter({Q0: Factors(one[Q0].A, 0 * one[Q0].B)}), {**NOTHING, "input_overlap": pytest.approx(1.0)}),
        (lambda one: random_adapter(1, modules=[V0]), {**NOTHING, "cosine": 0.0, "shared_modules": 0}),
        (
            lambda one: random_adapter(1, modules=[Q0], in_features=9),
            {**NOTHING, "cosine": 0.0, "shared_modules": 0, "other_shape": 1},
        ),
    ],
    ids=["a zero delta", "nothing shared", "another shape"],
)
def test_what_is_not_defined_is_absent(change: Callable[[Adapter], Adapter], expected: dict[str, object]) -> None:
    one = random_adapter(0, modules=[Q0])
    assert compare_adapters(one, change(one))["total"] == {"shared_modules": 1, "other_shape": 0, **expected}


def test_every_pair_is_compared_once() -> None:
    adapters = [random_adapter(seed, modules=[Q0]) for seed in range(3)]
    adapters[1] = Adapter(adapters[1].factors, provenance={"path": "german"})
    pairs = [(pair["first"], pair["second"]) for pair in compare_all(adapters)]
    assert pairs == [("adapter 1", "german"), ("adapter 1", "adapter 3"), ("german", "adapter 3")]
