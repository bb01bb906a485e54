from __future__ import annotations

import itertools

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, nonzero
from torch import Tensor

from pomona.adapters import Factors
from pomona.merging.tsv import Tsv, orthogonalised

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])
RANKS = ((3, 0.5), (5, 2.0), (2, 1.0))


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(7)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in RANKS]


def procrustes(X: Tensor) -> Tensor:
    P, D, Q_T = torch.linalg.svd(X, full_matrices=False)
    keep = nonzero(D)
    return P[:, :keep] @ Q_T[:keep]


def dense_tsv(factors: list[Factors], weights: list[float], counts: list[int]) -> Tensor:
    """From the dense deltas' decompositions, the leading `counts` triples of each."""
    U, S, V = [], [], []
    for one, weight, count in zip(factors, weights, counts, strict=True):
        left, values, right_T = torch.linalg.svd(delta(one), full_matrices=False)
        U.append(left[:, :count])
        S.append(weight * values[:count])
        V.append(right_T[:count].T)
    return procrustes(torch.cat(U, dim=1)) @ torch.cat(S).diag() @ procrustes(torch.cat(V, dim=1)).T


@SIDES
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_equals_the_dense_definition(out_features: int, in_features: int, weights: list[float]) -> None:
    factors = three(out_features, in_features)
    merged = Tsv().merge(factors, weights, None, GENERATOR)
    assert merged.rank == 10
    assert error(merged, dense_tsv(factors, weights, [3, 5, 2])) <= 1e-6


def test_by_hand() -> None:
    # Outputs u and v at 60 degrees: the nearest orthonormal pair is turned by 15 degrees on each side, to 90. Inputs orthogonal.
    half, root = 0.5, 0.75**0.5
    one = Factors(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]))
    two = Factors(torch.tensor([[0.0, 1.0]]), torch.tensor([[half], [root]]))
    merged = Tsv().merge([one, two], [1.0, 1.0], None, GENERATOR)
    cos15, sin15 = (6**0.5 + 2**0.5) / 4, (6**0.5 - 2**0.5) / 4
    expected = torch.tensor([[2 * cos15, sin15], [-2 * sin15, cos15]])
    torch.testing.assert_close(merged.delta(), expected, rtol=1e-6, atol=1e-6)


@SIDES
def test_the_singular_values_of_the_result_are_those_of_the_parts(out_features: int, in_features: int) -> None:
    factors = three(out_features, in_features)
    weights = [1.0, -2.0, 0.5]
    parts = [abs(weight) * torch.linalg.svdvals(delta(one))[: one.rank] for one, weight in zip(factors, weights, strict=True)]
    expected = torch.cat(parts).sort(descending=True).values
    found = torch.linalg.svdvals(delta(Tsv().merge(factors, weights, None, GENERATOR)))[:10]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_orthogonalised_is_orthonormal_and_the_nearest_such() -> None:
    X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = X / X.norm(dim=0)
    found = orthogonalised(X)
    torch.testing.assert_close(found.T @ found, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, procrustes(X), rtol=0, atol=1e-12)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(orthogonalised(X[:, order]), found[:, order], rtol=0, atol=1e-12)


def test_orthogonalised_leaves_null_directions_out() -> None:
    X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = X / X.norm(dim=0)
    found = orthogonalised(torch.cat([X, X[:, :1]], dim=1))
    assert torch.linalg.matrix_rank(found) == 3
    torch.testing.assert_close(found[:, 0], found[:, 3], rtol=0, atol=1e-12)
    torch.testing.assert_close(found, procrustes(torch.cat([X, X[:, :1]], dim=1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("angle", "rank"), [(1e-4, 1), (1e-2, 2)])
def test_vectors_whose_cosine_is_one_in_fp32_are_one(angle: float, rank: int) -> None:
    X = torch.tensor([[1.0, 1.0], [0.0, angle], [0.0, 0.0]], dtype=torch.float64)
    assert torch.linalg.matrix_rank(orthogonalised(X / X.norm(dim=0))) == rank


def test_a_repeated_adapter_gets_the_mean_of_its_weights() -> None:
    one, two, _ = three()
    for weights, mean in (([1.0, 1.0], 1.0), ([1.0, 4.0], 2.5), ([1.0, -3.0], -1.0)):
        merged = Tsv().merge([two, two], weights, None, GENERATOR)
        assert error(merged, mean * delta(two)) <= 1e-6
    # The same adapter in other factors, rounded to fp32: still one adapter.
    rescaled = Factors((two.A.double() * 2.0 / 3.0).float(), two.B * 3, 1.0)
    assert error(Tsv().merge([two, rescaled], [1.0, 1.0], None, GENERATOR), delta(two)) <= 1e-6
    # Beside others it keeps its own directions better than if it were given once.
    both = Tsv().merge([one, two, two], [1.0, 0.5, 1.5], None, GENERATOR)
    assert error(both, dense_tsv([one, two, two], [1.0, 0.5, 1.5], [3, 5, 5])) <= 1e-6


def test_opposite_adapters_cancel() -> None:
    one = three()[0]
    merged = Tsv().merge([one, one], [1.0, -1.0], None, GENERATOR)
    assert float(delta(merged).norm()) <= 1e-6 * float(delta(one).norm())


def test_adapters_of_one_shared_down_projection() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, 18, generator=generator)
    factors = [Factors(A, torch.randn(24, 3, generator=generator)) for _ in range(2)]
    merged = Tsv().merge(factors, [1.0, 1.0], None, GENERATOR)
    assert error(merged, dense_tsv(factors, [1.0, 1.0], [3, 3])) <= 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_null_triples_replace_no_other(scale: float) -> None:
    one, two, _ = three()
    padded = Factors(torch.cat([one.A, one.A[:1]]) * scale, torch.cat([one.B, 0 * one.B[:, :1]], dim=1), one.scaling)
    fresh = Factors(torch.ones(4, 18), torch.zeros(24, 4))
    merged = Tsv().merge([padded, two, fresh], [1.0, 1.0, 1.0], None, GENERATOR)
    scaled = Factors(one.A * scale, one.B, one.scaling)
    assert error(merged, dense_tsv([scaled, two], [1.0, 1.0], [3, 5])) <= 1e-6


def with_values(*values: float, seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(n, len(values), generator=generator))[0] for n in (24, 18))
    return Factors(V.T, U * torch.tensor(values))


@pytest.mark.parametrize(
    ("rank", "counts"),
    [
        (1, [0, 1, 0]),  # no share for everybody: the largest
        (2, [0, 2, 0]),
        (3, [1, 1, 1]),
        (4, [1, 2, 1]),  # one each, then the largest of the rest: 8
        (5, [1, 3, 1]),  # then 7, which is more than 2 * 2.75
        (6, [2, 2, 2]),  # a share of two
        (7, [2, 3, 2]),
        (8, [2, 4, 2]),
        (9, [2, 4, 3]),
        (20, [2, 4, 3]),
    ],
)
def test_rank_is_shared_out(rank: int, counts: list[int]) -> None:
    factors = [with_values(5, 0.1, seed=0), with_values(9, 8, 7, 6, seed=1), with_values(3.75, 2.75, 1, seed=2)]
    weights = [1.0, -1.0, 2.0]
    merged = Tsv().merge(factors, weights, rank, GENERATOR)
    assert merged.rank == sum(counts)
    assert error(merged, dense_tsv(factors, weights, counts)) <= 1e-6


def test_more_triples_than_the_sides_hold() -> None:
    generator = torch.Generator().manual_seed(1)
    factors = [random_factors(generator, 6, 8, 20) for _ in range(2)]
    merged = Tsv().merge(factors, [1.0, 1.0], None, GENERATOR)
    assert merged.rank == 8
    assert error(merged, dense_tsv(factors, [1.0, 1.0], [4, 4])) <= 1e-6


def test_permuting_adapters_changes_nothing() -> None:
    # Repeated singular values and a rank that cannot be shared out evenly: the order decides who gets the last place.
    factors = [with_values(2, 2, 1, seed=seed) for seed in range(3)]
    weights = [1.0, 1.0, -1.0]
    for rank in (None, 4):
        expected = Tsv().merge(factors, weights, rank, GENERATOR).delta()
        for order in itertools.permutations(range(3)):
            merged = Tsv().merge([factors[k] for k in order], [weights[k] for k in order], rank, GENERATOR)
            assert torch.equal(merged.delta(), expected)


def test_one_adapter_is_itself_and_at_a_rank_its_best_approximation() -> None:
    one = three()[1]
    assert error(Tsv().merge([one], [1.0], None, GENERATOR), delta(one)) <= 1e-6
    U, S, V_T = torch.linalg.svd(delta(one), full_matrices=False)
    assert error(Tsv().merge([one], [-1.0], 2, GENERATOR), -U[:, :2] @ S[:2].diag() @ V_T[:2]) <= 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_badly_scaled_adapters(scale: float) -> None:
    one, two, _ = three()
    factors = [Factors(one.A, one.B, scale), Factors(two.A, two.B, 1 / scale)]
    merged = Tsv().merge(factors, [1.0, 1.0], None, GENERATOR)
    assert error(merged, dense_tsv(factors, [1.0, 1.0], [3, 5])) <= 1e-6


def test_zero_deltas_stay_zero() -> None:
    fresh = Factors(torch.ones(2, 6), torch.zeros(5, 2))
    merged = Tsv().merge([fresh, fresh], [1.0, 1.0], None, GENERATOR)
    assert torch.equal(merged.delta(), torch.zeros(5, 6))
    assert merged.A.dtype == merged.B.dtype == torch.float32
    assert torch.equal(Tsv().merge([three()[0]], [0.0], None, GENERATOR).delta(), torch.zeros(24, 18))
