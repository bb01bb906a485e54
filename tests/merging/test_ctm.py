from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact, ties
from torch import Tensor

from pomona.adapters import Factors
from pomona.errors import InputError
from pomona.merging import merge_methods
from pomona.merging.ctm import Ctm, tucker2

SIDES = pytest.mark.parametrize(("out_features", "in_features"), [(24, 18), (18, 24)])


def three(out_features: int = 24, in_features: int = 18) -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [random_factors(generator, rank, in_features, out_features, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


def normalised(factors: list[Factors], weights: list[float], beta: float) -> Tensor:
    parts = torch.stack([weight * delta(one) for one, weight in zip(factors, weights, strict=True)])
    norms = parts.flatten(1).norm(dim=1)
    return parts / norms[:, None, None] * (beta * norms + (1 - beta) * norms.mean())[:, None, None]


def alternating(X: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same subspaces from Gram matrices of the dense updates, with many more iterations."""
    V = torch.linalg.eigh(sum(x.T @ x for x in X)).eigenvectors[:, -rank:]
    U = V
    for _ in range(200):
        U = torch.linalg.eigh(sum(x @ V @ V.T @ x.T for x in X)).eigenvectors[:, -rank:]
        V = torch.linalg.eigh(sum(x.T @ U @ U.T @ x for x in X)).eigenvectors[:, -rank:]
    return U, V


@SIDES
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_the_sum_is_the_dense_definition_s(out_features: int, in_features: int, weights: list[float]) -> None:
    factors = three(out_features, in_features)
    merged = Ctm(combine="sum").merge(factors, weights, None, GENERATOR)
    assert merged.rank == 5
    U, V = alternating(normalised(factors, weights, 0.25), 5)
    assert error(merged, U @ U.T @ exact(factors, weights) @ V @ V.T) <= 0.02  # the published iteration ends at 1e-6 of growth


def test_ties_acts_on_the_compressed_entries() -> None:
    factors, weights = three(), [1.0, -0.5, 2.0]
    U, V = tucker2(normalised(factors, weights, 0.25), 5)
    parts = [weight * U.T @ delta(one) @ V for one, weight in zip(factors, weights, strict=True)]
    assert error(Ctm().merge(factors, weights, 5, GENERATOR), U @ ties(parts, 0.25) @ V.T) <= 1e-6


def test_without_compression_the_sum_is_exact() -> None:
    factors, weights = three(), [0.3, -1.5, 2.0]
    assert error(Ctm(combine="sum").merge(factors, weights, 10, GENERATOR), exact(factors, weights)) <= 1e-6


def test_beta_zero_gives_a_small_adapter_as_much_room_as_a_large_one() -> None:
    one, two, _ = three()
    small = Factors(two.A, two.B, 1e-3)
    kept = {}
    for beta in (0.0, 1.0):
        merged = Ctm(combine="sum", beta=beta).merge([one, small], [1.0, 1.0], 4, GENERATOR)
        lost = exact([one, small], [1.0, 1.0]) - delta(merged)
        kept[beta] = float(lost.norm() / delta(one).norm())
    assert kept[1.0] < 0.05 < kept[0.0]


def test_tucker_s_subspaces_are_orthonormal_and_capture_more_than_the_start() -> None:
    X = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, V = tucker2(X, 4)
    for basis in (U, V):
        torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)
    U0 = torch.linalg.svd(torch.cat(list(X), dim=1)).U[:, :4]
    V0 = torch.linalg.svd(torch.cat(list(X.mT), dim=1)).U[:, :4]
    assert float((U.T @ X @ V).norm()) > float((U0.T @ X @ V0).norm())
    best = alternating(X, 4)
    assert float((U.T @ X @ V).norm()) >= 0.99 * float((best[0].T @ X @ best[1]).norm())


@pytest.mark.parametrize("parameters", [{"density": 0}, {"beta": 1.5}])
def test_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(parameters))):
        merge_methods.create("ctm", parameters)
