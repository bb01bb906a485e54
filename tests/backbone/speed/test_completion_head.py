from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pomona.backbone.speed import completion_head as room
from pomona.backbone.speed.completion_head import completion_loss


def case(n: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, 5, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(11, 5, generator=generator, dtype=dtype)
    bias = torch.randn(11, generator=generator, dtype=dtype)
    return hidden, weight, bias, torch.randint(11, (n,), generator=generator)


@pytest.mark.parametrize("rows", [1, 3, 7, 128])
@pytest.mark.parametrize("biased", [False, True])
def test_losses_and_gradients_are_those_of_cross_entropy(rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ROWS", rows)
    hidden, weight, bias, targets = case()
    upstream = torch.linspace(0.5, 2.0, 7)
    ours = completion_loss(hidden, weight, bias if biased else None, targets)
    theirs = F.cross_entropy(F.linear(hidden, weight, bias if biased else None), targets, reduction="none")
    torch.testing.assert_close(ours.double(), theirs, atol=1e-6, rtol=1e-6)
    (found,) = torch.autograd.grad((ours * upstream).sum(), hidden)
    (expected,) = torch.autograd.grad((theirs * upstream).sum(), hidden)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    losses = completion_loss(hidden, torch.tensor([[1.0], [0.0]]), None, torch.tensor([1, 1]))
    assert losses.tolist() == [300.0, 0.0]
    losses.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[1.0], [0.0]]


def test_half_precision_is_summed_in_fp32() -> None:
    hidden, weight, bias, targets = (value.bfloat16() if value.is_floating_point() else value for value in case())
    hidden = hidden.detach().requires_grad_()
    losses = completion_loss(hidden, weight, bias, targets)
    assert losses.dtype == torch.float32
    logits = F.linear(hidden, weight, bias).float()
    torch.testing.assert_close(losses, F.cross_entropy(logits, targets, reduction="none"), atol=1e-5, rtol=1e-5)
    losses.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_without_gradient_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias, targets = case()
    expected = completion_loss(hidden, weight, bias, targets).detach()
    with torch.no_grad():
        losses = completion_loss(hidden, weight, bias, targets)
    assert torch.equal(losses, expected)
    assert not losses.requires_grad
    assert completion_loss(hidden[:0], weight, bias, targets[:0]).shape == (0,)
