from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pomona.adapters.factored_svd import Spectrum
from pomona.merging import truncate as module
from pomona.merging.truncate import truncate

O, I = 600, 700  # noqa: E741


def product(rank: int, scales: Tensor | None = None) -> Tensor:
    left, right = torch.randn(O, rank), torch.randn(rank, I)
    return (left if scales is None else left * scales) @ right


def trimmed(density: float) -> Tensor:
    deltas = [product(8) for _ in range(2)]
    return sum((delta * (delta.abs() >= delta.abs().flatten().quantile(1 - density)) for delta in deltas), torch.zeros(O, I))


def dropped(density: float) -> Tensor:
    return product(8) * (torch.rand(O, I) < density) / density


def flat() -> Tensor:
    return torch.linalg.qr(torch.randn(I, O)).Q.T


MATRICES: dict[str, Callable[[], Tensor]] = {
    "trimmed to 1 %": lambda: trimmed(0.01),
    "trimmed to 20 %": lambda: trimmed(0.2),
    "dropped to 5 %": lambda: dropped(0.05),
    "noise": lambda: torch.randn(O, I),
    "all singular values equal": flat,
    "slow decay": lambda: flat() * torch.arange(1, I + 1) ** -0.5,
    "fast decay": lambda: flat() * torch.arange(1, I + 1) ** -1.5,
    "scaled from 1e6 to 1e-6": lambda: product(40, torch.logspace(6, -6, 40)),
    "entries of 1e-15": lambda: trimmed(0.2) * 1e-15,
}


def error(spectrum: Spectrum, matrix: Tensor) -> float:
    return float(((spectrum.U_OK * spectrum.S_K) @ spectrum.V_IK.T - matrix.double()).norm())


@pytest.mark.parametrize("rank", [1, 16])
@pytest.mark.parametrize("name", MATRICES)
def test_error_is_the_optimal_one_within_1e_4(name: str, rank: int) -> None:
    torch.manual_seed(0)
    matrix = MATRICES[name]()
    for oriented in (matrix, matrix.T.contiguous()):
        spectrum = truncate(oriented, rank)
        assert spectrum.S_K.shape == (rank,)
        # Eckart-Young from the squared singular values; a Gram matrix in fp64 is exact enough for a sum of squares.
        energies = torch.linalg.eigvalsh(matrix.double() @ matrix.double().T).clamp(min=0.0)
        optimal = float(energies[:-rank].sum().sqrt())
        assert error(spectrum, oriented) <= optimal * (1 + 1e-4) + 1e-7 * float(matrix.double().norm())
        torch.testing.assert_close(spectrum.U_OK.T @ spectrum.U_OK, torch.eye(rank).double(), rtol=0, atol=1e-9)
        torch.testing.assert_close(spectrum.V_IK.T @ spectrum.V_IK, torch.eye(rank).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("small", [0, 2**19])
@pytest.mark.parametrize("name", ["trimmed to 20 %", "dropped to 5 %", "slow decay", "fast decay"])
def test_the_loss_is_that_of_the_factors_themselves(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the iteration found, not of the best that there is."""
    monkeypatch.setattr(module, "_SMALL_ENTRIES", small)
    torch.manual_seed(0)
    matrix = MATRICES[name]()
    for oriented in (matrix, matrix.T.contiguous()):
        found = truncate(oriented, 8).factors()
        missing = (oriented.double() - found.delta(torch.float64)).norm()
        assert math.sqrt(found.loss.lost_squared) == pytest.approx(float(missing), rel=1e-6)
        assert math.sqrt(found.loss.whole_squared) == pytest.approx(float(oriented.double().norm()), rel=1e-9)


@pytest.mark.parametrize("exact_rank", [1, 5, 16])
def test_a_matrix_of_low_rank_comes_back(exact_rank: int) -> None:
    torch.manual_seed(exact_rank)
    matrix = product(exact_rank, torch.logspace(0, -3, exact_rank))
    A, B = truncate(matrix, 16).balanced()
    assert A.shape == (16, I)
    assert B.shape == (O, 16)
    assert (B.double() @ A.double() - matrix.double()).norm() <= 1e-6 * matrix.norm()


def test_large_and_small_matrices_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same matrix by LAPACK and by Krylov: the same singular values and, up to sign, vectors."""
    torch.manual_seed(2)
    matrix = product(30, torch.logspace(0, -2, 30))[:200, :300]
    whole = truncate(matrix, 10)
    monkeypatch.setattr(module, "_SMALL_ENTRIES", 0)
    iterated = truncate(matrix, 10)
    torch.testing.assert_close(iterated.S_K, whole.S_K, rtol=1e-6, atol=0)
    torch.testing.assert_close((iterated.U_OK * whole.U_OK).sum(0).abs(), torch.ones(10).double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("small", [0, 2**18])
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 4), (7, 7)])
def test_full_rank_is_the_matrix_itself(shape: tuple[int, int], small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL_ENTRIES", small)
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    assert truncate(matrix, 100).S_K.shape == (min(shape),)
    assert error(truncate(matrix, 100), matrix) <= 1e-12


@pytest.mark.parametrize("shape", [(30, 40), (40, 30)])
def test_a_basis_may_fill_the_whole_space(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 20 + 8 columns in 30 dimensions: the second one has two."""
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(5))
    optimal = float(torch.linalg.svdvals(matrix.double())[20:].norm())
    monkeypatch.setattr(module, "_SMALL_ENTRIES", 0)
    assert error(truncate(matrix, 20), matrix) == pytest.approx(optimal, rel=1e-9)


@pytest.mark.parametrize("small", [0, 2**18])
def test_zero_matrix_stays_zero(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL_ENTRIES", small)
    A, B = truncate(torch.zeros(30, 40), 4).balanced()
    assert torch.equal(B @ A, torch.zeros(30, 40))


def test_does_not_touch_the_global_random_state() -> None:
    matrix = torch.randn(520, 520, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(0)
    first = truncate(matrix, 3)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(truncate(matrix, 3).U_OK, first.U_OK)
