"""`y + B (scale * (A dropout(x)))` as one differentiable operation: what an adapter adds to a frozen module's output.

Written out in separate operations it keeps the dropped inputs and two outputs for the backward pass and draws a random number
in full precision for every input entry, which on a CPU costs more than the products. Here the backward pass keeps `x`, which
the model holds anyway, and one byte an entry.

Axes: M tokens, G groups of tokens, R rank, I input features, O output features.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STEPS = 1 << 16


def add_low_rank(
    y: Float[Tensor, "... O"],
    x: Float[Tensor, "... I"],
    A_RI: Float[Tensor, "R I"],
    B_OR: Float[Tensor, "O R"],
    dropout: float,
    scale_R: Float[Tensor, " R"] | None = None,
) -> tuple[Float[Tensor, "... O"], Float[Tensor, "... R"]]:
    """Add `B (scale * (A dropout(x)))` to `y`, in place where the dtypes allow.

    Args:
        y: the frozen module's output; not to be used afterwards.
        x: its input.
        A_RI: down projection, fp32, scaling included.
        B_OR: up projection, fp32.
        dropout: share of the entries of `x` that A does not see, in [0, 1), met to 2^-17; what is left is scaled up to keep the
            mean. Drawn from torch's global generator.
        scale_R: factor of each row of A, fp32; None for 1. Its gradient takes no product with the factors' own shapes.

    Returns:
        The sum, in the dtype of `y`, differentiable by all tensors; and what B reads, without gradient.
    """
    # autograd refuses to write into a view through an operation of our own
    y = y.clone() if y._is_view() else y
    with torch.autocast(x.device.type, enabled=False):
        return _AddLowRank.apply(y, x, A_RI, B_OR, scale_R, round(dropout * STEPS))  # pyright: ignore[reportReturnType]


def add_low_rank_by_group(
    y: Float[Tensor, "... O"], x: Float[Tensor, "... I"], A_GRI: Float[Tensor, "G R I"], B_GOR: Float[Tensor, "G O R"]
) -> Float[Tensor, "... O"]:
    """Add `B_g (A_g x)` to the rows of group g of `y`, in place; without gradient or dropout.

    The rows are read in the order of the leading axes; the first of G equal parts is group 0.

    Args:
        y: the frozen module's output, contiguous; not to be used afterwards.
        x: its input.
        A_GRI: each group's down projection, fp32, scaling included.
        B_GOR: each group's up projection, fp32.
    """
    groups = len(A_GRI)
    with torch.autocast(x.device.type, enabled=False):
        hidden_GMR = x.reshape(groups, -1, x.shape[-1]).to(A_GRI.dtype) @ A_GRI.mT
        y_GMO = y.view(groups, -1, y.shape[-1])
        if y.dtype == B_GOR.dtype:
            y_GMO.baddbmm_(hidden_GMR, B_GOR.mT)
        else:
            y_GMO.add_(hidden_GMR @ B_GOR.mT)
    return y


def keep_mask(like: Tensor, dropped_steps: int) -> Bool[Tensor, "..."]:
    """Each entry True with probability `1 - dropped_steps / 2^16`."""
    if like.device.type != "cpu":
        return torch.randint(STEPS, like.shape, device=like.device, dtype=torch.int32) >= dropped_steps
    # Four entries share one draw of 64 bits: a fifth of the time of torch's own dropout.
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[: like.numel()] >= dropped_steps - STEPS // 2).view(like.shape)


class _AddLowRank(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, A_RI: Tensor, B_OR: Tensor, scale_R: Tensor | None, dropped_steps: int
    ) -> tuple[Tensor, Tensor]:
        mask = keep_mask(x, dropped_steps) if dropped_steps else None
        ctx.kept_share = 1 - dropped_steps / STEPS
        inputs_MI = _dropped(x, mask, A_RI.dtype)
        hidden_MR = (inputs_MI @ A_RI.T).div_(ctx.kept_share)
        ctx.save_for_backward(x, mask, A_RI, B_OR, hidden_MR, scale_R)
        read_MR = hidden_MR if scale_R is None else hidden_MR * scale_R
        rows_MO = y.view(-1, y.shape[-1])
        if y.dtype == B_OR.dtype:
            rows_MO.addmm_(read_MR, B_OR.T)
        else:
            rows_MO.add_(read_MR @ B_OR.T)
        read = read_MR.view(*x.shape[:-1], -1)
        ctx.mark_dirty(y)
        ctx.mark_non_differentiable(read)
        return y, read

    @staticmethod
    def backward(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, mask, A_RI, B_OR, hidden_MR, scale_R = ctx.saved_tensors
        dy_MO = dy.reshape(-1, dy.shape[-1]).to(B_OR.dtype)
        dread_MR = dy_MO @ B_OR
        dx = dA_RI = dB_OR = dscale_R = None
        if ctx.needs_input_grad[4]:
            dscale_R = (dread_MR * hidden_MR).sum(dim=0)
        if ctx.needs_input_grad[3]:
            dB_OR = dy_MO.T @ (hidden_MR if scale_R is None else hidden_MR * scale_R)
        dhidden_MR = (dread_MR if scale_R is None else dread_MR.mul_(scale_R)).div_(ctx.kept_share)
        if ctx.needs_input_grad[1]:
            dx = (dhidden_MR @ A_RI).view(x.shape)
            dx = (dx if mask is None else dx.mul_(mask)).to(x.dtype)
        if ctx.needs_input_grad[2]:
            dA_RI = dhidden_MR.T @ _dropped(x, mask, A_RI.dtype)
        return dy, dx, dA_RI, dB_OR, dscale_R, None


def _dropped(x: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The entries that are kept, not yet scaled up, as rows [M, I]."""
    return (x if mask is None else x * mask).reshape(-1, x.shape[-1]).to(dtype)
