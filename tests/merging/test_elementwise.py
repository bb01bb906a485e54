"""What all element-wise merges have in common, on each of them."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import random_factors

from pomona.adapters import Factors
from pomona.adapters import factors as adapter_factors
from pomona.errors import InputError
from pomona.merging.breadcrumbs import Breadcrumbs
from pomona.merging.dare_linear import DareLinear
from pomona.merging.dare_ties import DareTies
from pomona.merging.della import Della
from pomona.merging.elementwise import ElementwiseMerge
from pomona.merging.magnitude_prune import MagnitudePrune
from pomona.merging.ties import Ties

ON_FACTORS: list[ElementwiseMerge] = [
    Ties(density=0.5, on="factors"),
    DareLinear(on="factors"),
    DareTies(on="factors"),
    MagnitudePrune(on="factors"),
]
ON_DELTAS: list[ElementwiseMerge] = [Ties(), DareLinear(), DareTies(), MagnitudePrune(), Breadcrumbs(), Della()]
METHODS = pytest.mark.parametrize("method", ON_DELTAS + ON_FACTORS, ids=repr)
DELTA_METHODS = pytest.mark.parametrize("method", ON_DELTAS, ids=repr)
FACTOR_METHODS = pytest.mark.parametrize("method", ON_FACTORS, ids=repr)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def three(rank: int = 4) -> list[Factors]:
    generator = seeded(1)
    return [random_factors(generator, rank, scaling=scaling) for scaling in (0.5, 2.0, 1.0)]


@METHODS
def test_permuting_adapters_gives_the_same_bits(method: ElementwiseMerge) -> None:
    factors, weights = three(), [1.0, -0.5, 0.3]
    first = method.merge(factors, weights, None, seeded())
    for places in permutations(range(3)):
        again = method.merge([factors[k] for k in places], [weights[k] for k in places], None, seeded())
        assert torch.equal(again.A, first.A)
        assert torch.equal(again.B, first.B)


@METHODS
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_scaling_all_weights_scales_the_delta(method: ElementwiseMerge, factor: float) -> None:
    weights = [1.0, -0.5, 0.3]
    scaled = method.merge(three(), [factor * weight for weight in weights], None, seeded()).delta(torch.float64)
    expected = factor * method.merge(three(), weights, None, seeded()).delta(torch.float64)
    assert (scaled - expected).norm() <= 2e-6 * expected.norm()


@METHODS
def test_only_zero_weights_give_zero(method: ElementwiseMerge) -> None:
    assert method.merge(three(), [0.0] * 3, None, seeded()).delta().count_nonzero() == 0


@METHODS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_what_its_fp32_copy_gives(method: ElementwiseMerge, dtype: torch.dtype) -> None:
    generator = seeded(2)
    half = [random_factors(generator, 3, scaling=2.0, dtype=dtype) for _ in range(2)]
    before = [(one.A.clone(), one.B.clone()) for one in half]
    got = method.merge(half, [1.0, 0.7], None, seeded())
    wide = method.merge([Factors(one.A.float(), one.B.float(), 2.0) for one in half], [1.0, 0.7], None, seeded())
    assert torch.equal(got.A, wide.A)
    assert torch.equal(got.B, wide.B)
    assert (got.A.dtype, got.B.dtype, got.scaling) == (torch.float32, torch.float32, 1.0)
    assert all(torch.equal(one.A, A) and torch.equal(one.B, B) for one, (A, B) in zip(half, before, strict=True))


@METHODS
def test_inputs_in_fp32_stay_as_they_are(method: ElementwiseMerge) -> None:
    factors = three()
    method.merge(factors, [1.0, -0.5, 0.3], None, seeded())
    assert all(torch.equal(one.A, old.A) and torch.equal(one.B, old.B) for one, old in zip(factors, three(), strict=True))


@METHODS
def test_one_adapter_is_itself_with_the_parameters_of_identity(method: ElementwiseMerge) -> None:
    """On factors too: there PEFT's square roots of the scaling meet again in the product."""
    assert method.identity is not None
    exact = type(method)(**method.identity, **({"on": method.on} if method in ON_FACTORS else {}))  # pyright: ignore[reportArgumentType]
    one = random_factors(seeded(3), 4, scaling=3.0)
    merged = exact.merge([one], [1.0], None, seeded())
    assert merged.rank == 4
    assert (merged.delta(torch.float64) - one.delta(torch.float64)).norm() <= 1e-6 * one.delta().norm()


@DELTA_METHODS
def test_blocks_of_rows_give_the_whole_matrix(method: ElementwiseMerge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the blocks end is of no effect: 20 rows at once, or 3 at a time."""
    factors, weights = three(), [1.0, -0.5, 0.3]
    whole = method.merge(factors, weights, 12, seeded()).delta(torch.float64)
    monkeypatch.setattr(adapter_factors, "_BLOCK_ENTRIES", 36)
    assert len(list(adapter_factors.row_blocks(20, 12))) == 7
    in_blocks = method.merge(factors, weights, 12, seeded()).delta(torch.float64)
    assert (in_blocks - whole).norm() <= 1e-6 * whole.norm()


@DELTA_METHODS
@pytest.mark.parametrize(("rank", "expected"), [(None, 5), (2, 2), (9, 9), (100, 12)])
def test_rank_is_the_largest_or_the_one_that_is_asked_for(method: ElementwiseMerge, rank: int | None, expected: int) -> None:
    generator = seeded(4)
    factors = [random_factors(generator, one) for one in (2, 5)]
    merged = method.merge(factors, [1.0, 1.0], rank, seeded())
    assert merged.rank == expected
    whole = method.merge(factors, [1.0, 1.0], 12, seeded()).delta(torch.float64)
    optimal = torch.linalg.svdvals(whole)[expected:].norm()
    assert (merged.delta(torch.float64) - whole).norm() <= optimal * (1 + 1e-5) + 1e-6 * whole.norm()


@DELTA_METHODS
def test_never_a_rank_above_the_sides(method: ElementwiseMerge) -> None:
    wide = [random_factors(seeded(5), 9, in_features=3, out_features=5)]
    assert method.merge(wide, [1.0], None, seeded()).rank == 3


@FACTOR_METHODS
def test_factors_need_equal_ranks_and_keep_theirs(method: ElementwiseMerge) -> None:
    generator = seeded(6)
    factors = [random_factors(generator, rank) for rank in (2, 3)]
    with pytest.raises(InputError, match=r"rank: on=factors requires factors of equal ranks \(got \[.*\]\)\. Use on=deltas\."):
        method.merge(factors, [1.0, 1.0], None, seeded())
    with pytest.raises(InputError, match=r"rank: on=factors always gives rank 4 \(got 3\)\. Use on=deltas\."):
        method.merge(three(), [1.0] * 3, 3, seeded())
    assert method.merge(three(), [1.0] * 3, 4, seeded()).rank == 4


@pytest.mark.parametrize(
    ("cls", "field", "value", "known"),
    [
        (Ties, "majority", "most", "total, frequency"),
        (Ties, "on", "models", "deltas, factors"),
        (DareTies, "majority", None, "total, frequency"),
        (DareTies, "on", "A", "deltas, factors"),
        (DareLinear, "on", "delta", "deltas, factors"),
        (MagnitudePrune, "on", 1, "deltas, factors"),
        (Della, "majority", "sum", "total, frequency"),
    ],
)
def test_a_wrong_choice_is_refused(cls: type[ElementwiseMerge], field: str, value: object, known: str) -> None:
    """On a stand-in, since the tests' type checker would refuse these before the class sees them."""
    fields = {"density": 0.5, "epsilon": 0.1, "majority": "total", "on": "deltas", field: value}
    with pytest.raises(InputError, match=rf"{field}: must be one of {known} \(got {value!r}\)"):
        cls.__post_init__(SimpleNamespace(**fields))  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("cls", [DareLinear, DareTies, Della])
def test_random_merges_follow_the_generator_alone(cls: type[ElementwiseMerge]) -> None:
    torch.manual_seed(0)
    first = cls().merge(three(), [1.0] * 3, None, seeded(7))
    torch.manual_seed(1)
    again, other = cls().merge(three(), [1.0] * 3, None, seeded(7)), cls().merge(three(), [1.0] * 3, None, seeded(8))
    assert torch.equal(again.B, first.B)
    assert not torch.equal(other.B, first.B)


@pytest.mark.parametrize("on", ["deltas", "factors"])
def test_the_same_adapter_twice_gets_two_masks(on: str) -> None:
    """Else two copies would be dropped together, and their sum would have twice the noise that it should."""
    one = Factors(torch.eye(8), torch.ones(8, 8))
    merged = DareLinear(density=0.5, on=on).merge([one, one], [1.0, 1.0], 8, seeded(9))  # pyright: ignore[reportArgumentType]
    side = merged.delta() if on == "deltas" else merged.B
    assert {round(value) for value in side.flatten().tolist()} == {0, 2, 4}


@settings(max_examples=40, deadline=None)
@given(
    cls=st.sampled_from([MagnitudePrune, DareLinear]),
    ranks=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 1000),
)
def test_density_one_is_the_plain_weighted_sum(
    cls: type[MagnitudePrune | DareLinear], ranks: list[int], sides: tuple[int, int], seed: int
) -> None:
    generator = seeded(seed)
    factors = [random_factors(generator, rank, *sides, scaling=0.5 + place) for place, rank in enumerate(ranks)]
    weights = [1.0, -0.5, 2.0][: len(ranks)]
    merged = cls(density=1.0).merge(factors, weights, 20, generator).delta(torch.float64)
    parts = [weight * one.delta(torch.float64) for one, weight in zip(factors, weights, strict=True)]
    assert (merged - sum(parts)).norm() <= 2e-6 * sum(part.norm() for part in parts)
