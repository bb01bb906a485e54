"""Cross-entropy at the output head, with the gradient by the hidden states made in the same pass.

A vocabulary of 262,144 makes the logits the largest tensor of a step by far. The head is frozen, so its input is all that
needs a gradient; that is known as soon as the logits are. They are turned into it in place, some rows at a time, and never kept.

Axes: N predicted tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pomona.backbone.frozen_linear import product

ROWS = 128
"""Rows of logits at a time: enough for the matrix product to reach its speed, few enough for memory."""


def completion_loss(
    hidden_NH: Float[Tensor, "N H"],
    weight_VH: Float[Tensor, "V H"],
    bias_V: Float[Tensor, " V"] | None,
    targets_N: Int[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """Negative log-likelihood of each target under `softmax(weight h + bias)`, nats, fp32.

    Differentiable by `hidden_NH` alone, and once. Each row's gradient is `(softmax - onehot) weight`.

    Args:
        hidden_NH: hidden states after the model's final norm.
        weight_VH: of the output head; frozen.
        bias_V: of the output head, or None.
        targets_N: the tokens to predict.
    """
    return _CompletionLoss.apply(hidden_NH, weight_VH, bias_V, targets_N, torch.is_grad_enabled() and hidden_NH.requires_grad)  # pyright: ignore[reportReturnType]


class _CompletionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor, wants_gradient: bool
    ) -> Tensor:
        losses, gradients = [], []
        for hidden, targets in zip(hidden_NH.split(ROWS), targets_N.split(ROWS), strict=True):
            logits = product(hidden, weight_VH, bias_V).float()
            chosen = logits.gather(1, targets[:, None])
            highest = logits.amax(dim=1, keepdim=True)
            weights = logits.sub_(highest).exp_()
            total = weights.sum(dim=1, keepdim=True)
            losses.append((highest + total.log() - chosen).squeeze(1))
            if wants_gradient:
                gradient = product(weights.to(weight_VH.dtype), weight_VH.T).float().div_(total)
                gradients.append(gradient.sub_(weight_VH[targets].float()))
        if wants_gradient:
            ctx.save_for_backward(torch.cat(gradients).to(hidden_NH.dtype) if gradients else hidden_NH)
        return torch.cat(losses) if losses else hidden_NH.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient_NH,) = ctx.saved_tensors
        return (upstream_N[:, None] * gradient_NH).to(gradient_NH.dtype), None, None, None, None
