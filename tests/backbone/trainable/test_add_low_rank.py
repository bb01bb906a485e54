from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pomona.backbone.trainable.add_low_rank import STEPS, add_low_rank, keep_mask


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 5), (2, 3, 4), (6, 4), (5, 6))
    y, x, A, B = (torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes)
    return y, x, A, B


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_sum_and_its_gradients_are_those_of_separate_operations(dropout: float) -> None:
    leaves = case()
    y, x, A, B = leaves
    torch.manual_seed(1)
    found, hidden = add_low_rank(y * 1.0, x, A, B, dropout)
    torch.manual_seed(1)
    mask = keep_mask(x, int(dropout * STEPS)) if dropout else torch.ones_like(x, dtype=torch.bool)
    dropped = x * mask / (1 - dropout)
    expected = y + dropped @ A.T @ B.T
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(hidden, dropped @ A.T)
    assert not hidden.requires_grad
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((found * upstream).sum(), leaves), torch.autograd.grad((expected * upstream).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_scale_of_the_rows_of_a_has_a_gradient_too(dropout: float) -> None:
    y, x, A, B = case()
    scale = torch.tensor([0.0, -1.5, 0.3, 2.0, 1.0, -0.2], dtype=torch.float64, requires_grad=True)
    leaves = (y, x, A, B, scale)
    torch.manual_seed(1)
    found, hidden = add_low_rank(y * 1.0, x, A, B, dropout, scale)
    torch.manual_seed(1)
    mask = keep_mask(x, int(dropout * STEPS)) if dropout else torch.ones_like(x, dtype=torch.bool)
    read = (x * mask / (1 - dropout)) @ (scale[:, None] * A).T
    torch.testing.assert_close(found, y + read @ B.T)
    torch.testing.assert_close(hidden, read)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = torch.autograd.grad((found * upstream).sum(), leaves)
    theirs = torch.autograd.grad(((y + read @ B.T) * upstream).sum(), leaves)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)


def test_nothing_is_computed_for_inputs_without_gradient() -> None:
    y, x, A, B = case()
    found, _ = add_low_rank((y * 1.0).detach(), x.detach(), A, B, 0.0)
    found.sum().backward()
    assert x.grad is None
    assert y.grad is None
    assert A.grad is not None


def test_a_view_is_left_as_it_is() -> None:
    y, x, A, B = case()
    whole = (y.detach() * 1.0).view(6, 5)
    kept = whole.clone()
    add_low_rank(whole.view(2, 3, 5), x, A, B, 0.0)
    assert torch.equal(whole, kept)


@pytest.mark.parametrize("steps", [1, STEPS // 20, STEPS // 2, STEPS - 1])
def test_entries_are_dropped_with_the_given_probability(steps: int) -> None:
    torch.manual_seed(0)
    n, share = 1 << 20, steps / STEPS
    dropped = int((~keep_mask(torch.empty(n), steps)).sum())
    assert abs(dropped - n * share) <= 5 * (n * share * (1 - share)) ** 0.5


def test_neighbours_are_dropped_independently() -> None:
    """Four entries come from one draw: each lag's product has the mean of independent ones."""
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(1 << 20), STEPS // 2).double() - 0.5
    for lag in (1, 2, 3, 4):
        assert abs(float((mask[:-lag] * mask[lag:]).mean())) < 5 * 0.25 / (1 << 10)
    for place in range(4):
        assert abs(float(mask[place::4].mean())) < 5 * 0.5 / (1 << 9)
