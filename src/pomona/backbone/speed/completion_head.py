"""Cross-entropy at the output head, with its gradient in the same pass: worth the logits' memory, most with large vocabularies.

`python -m benchmarks train_speed` and `train_memory` measure a step with it: the head's softmax and loss take 0.1 to 0.5 % of an
epoch (docs/results).

A vocabulary of 262,144 makes the logits the largest tensor of a step by far. The head is frozen, so its input is all that
needs a gradient; that is known as soon as the logits are. They are turned into it in place, some rows at a time, and never kept.

Axes: N predicted tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pomona.backbone.speed.base import SpeedUp, speed_ups
from pomona.backbone.speed.frozen_products import FrozenLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 128
"""Rows of logits at a time: enough for the matrix product to reach its speed, few enough for memory."""


Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`x W' + b` of x, W and b, as `F.linear` has it."""


@speed_ups.register("completion_head")
@dataclass(frozen=True)
class CompletionHead(SpeedUp):
    """The loss of completions is computed from hidden states, and its gradient with it."""

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: where the head is plain."""
        return has_plain_head(model)


@torch.no_grad()
def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are the output head of the last hidden state and nothing more, such as a scale or a cap.

    Tried on a text in which the head says numbers from -1000 to 1000: the logits must be these to the last bit. What a cap does
    to the small logits of a text is less than rounding.
    """
    head = model.get_output_embeddings()
    if type(head) not in (nn.Linear, FrozenLinear):
        return False
    assert isinstance(head, nn.Linear)
    passed: list[tuple[Tensor, Tensor]] = []

    def say_numbers(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        said = torch.linspace(-1000, 1000, output.numel(), device=output.device).view_as(output).to(output.dtype)
        passed.append((inputs[0], said))
        return said

    tokens = torch.tensor([[1, 0, 1]], device=model.device)
    hook = head.register_forward_hook(say_numbers)
    try:
        logits = model(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
    # Not by a hook on the base model: OPT calls the decoder within it.
    states = getattr(model.base_model(input_ids=tokens, use_cache=False), "last_hidden_state", None)
    if len(passed) != 1 or not isinstance(states, Tensor):
        return False
    read, said = passed[0]
    if states.shape != read.shape or not torch.equal(logits.float(), said.float()):
        return False
    return bool((states - read).abs().max() <= 16 * torch.finfo(read.dtype).eps * read.abs().max())


def completion_loss(
    hidden_NH: Float[Tensor, "N H"],
    weight_VH: Float[Tensor, "V H"],
    bias_V: Float[Tensor, " V"] | None,
    targets_N: Int[Tensor, " N"],
    product: Product = F.linear,
) -> Float[Tensor, " N"]:
    """Negative log-likelihood of each target under `softmax(weight h + bias)`, nats, fp32.

    Differentiable by `hidden_NH` alone, and once. Each row's gradient is `(softmax - onehot) weight`.

    Args:
        hidden_NH: hidden states after the model's final norm.
        weight_VH: of the output head; frozen.
        bias_V: of the output head, or None.
        targets_N: the tokens to predict.
        product: makes the products with the frozen weight.
    """
    wants_gradient = torch.is_grad_enabled() and hidden_NH.requires_grad
    return _CompletionLoss.apply(hidden_NH, weight_VH, bias_V, targets_N, product, wants_gradient)  # pyright: ignore[reportReturnType]


class _CompletionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        product: Product,
        wants_gradient: bool,
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
                gradient = product(weights.to(weight_VH.dtype), weight_VH.T, None).float().div_(total)
                gradients.append(gradient.sub_(weight_VH[targets].float()))
        if wants_gradient:
            ctx.save_for_backward(torch.cat(gradients).to(hidden_NH.dtype) if gradients else hidden_NH)
        return torch.cat(losses) if losses else hidden_NH.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient_NH,) = ctx.saved_tensors
        return (upstream_N[:, None] * gradient_NH).to(gradient_NH.dtype), None, None, None, None, None
