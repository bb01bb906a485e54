"""Sequences laid end to end in one row, on a CPU: nothing is computed on padding, worth the share of padding in a batch.

An accelerator is faster with few large kernels (docs/adr/0021). `python -m benchmarks train_speed` measures a step with it.

Every linear map and norm of the model works on tokens one by one; attention alone must know where a sequence ends. So positions
start anew with each sequence, and a registered attention function lets each sequence attend to itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pomona.backbone.speed.base import SpeedUp, speed_ups
from pomona.backbone.speed.completion_head import has_plain_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = "pomona_packed"


@speed_ups.register("packing")
@dataclass(frozen=True)
class Packing(SpeedUp):
    """Batches are packed in place of padded."""

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: on a CPU, a model with a plain head for which `can_pack` holds."""
        return model.device.type == "cpu" and has_plain_head(model) and can_pack(model)


def packed_states(model: PreTrainedModel, tokens_1N: Tensor, lengths: Sequence[int]) -> Float[Tensor, "1 N H"]:
    """Last hidden states, after the final norm, of packed sequences. Differentiable.

    Where activations are recomputed in the backward pass, that pass must be within `packed_attention` too.

    Args:
        model: a causal language model for which `can_pack` holds.
        tokens_1N: the sequences' tokens, end to end, [1, N].
        lengths: tokens of each sequence, each >= 1, N together.
    """
    positions = torch.cat([torch.arange(length, device=tokens_1N.device) for length in lengths])[None]
    # A mask of four axes is taken as it is; made here, it would be N x N. The attention function does not read it.
    unread = torch.zeros(1, 1, 1, 1, device=tokens_1N.device, dtype=model.dtype)
    with packed_attention(model):
        return model.base_model(
            input_ids=tokens_1N, position_ids=positions, attention_mask=unread, use_cache=False, packed_lengths=tuple(lengths)
        ).last_hidden_state


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model's attention knows packed sequences; what is not packed is attended to as before."""
    _register()
    before = model.config._attn_implementation
    model.config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before


@torch.no_grad()
def can_pack(model: PreTrainedModel) -> bool:
    """Whether the model gives packed sequences the hidden states that it gives each by itself. Tried on three short ones.

    Not so where positions or masks are made in a way of their own, or where a state runs through the row.
    """
    lengths = (5, 2, 7)
    tokens = torch.arange(sum(lengths), device=model.device)[None] % model.config.get_text_config().vocab_size
    try:
        packed = packed_states(model, tokens, lengths)
        apart = [model.base_model(input_ids=part, use_cache=False).last_hidden_state for part in tokens.split(lengths, dim=1)]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return False
    expected = torch.cat(apart, dim=1)
    if packed.shape != expected.shape:
        return False
    return bool((packed - expected).abs().max() <= 64 * torch.finfo(packed.dtype).eps * expected.abs().max())


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def _attend(
    module: nn.Module,
    query: Float[Tensor, "B H N D"],
    key: Float[Tensor, "B K N D"],
    value: Float[Tensor, "B K N D"],
    attention_mask: Tensor | None,
    *,
    packed_lengths: tuple[int, ...] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "B N H D"], None]:
    """Causal attention within each sequence, in the shape of transformers' attention functions.

    Raises:
        ValueError: packed sequences, and what plain attention does not know: capped scores, sinks or biased positions.
    """
    if packed_lengths is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, position_bias=position_bias, softcap=softcap, **others
        )  # pyright: ignore[reportReturnType]
    if softcap is not None or s_aux is not None or position_bias is not None:
        raise ValueError("packed attention knows plain scores only")
    grouped = query.shape[1] != key.shape[1]
    outputs = []
    # `split`, since the gradient of each slice by itself would be a tensor of N tokens.
    parts = zip(*(states.split(packed_lengths, dim=2) for states in (query, key, value)), strict=True)
    for q, k, v in parts:
        mask = _band(q.shape[2], sliding_window, q.device) if sliding_window is not None and q.shape[2] > sliding_window else None
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        outputs.append(attended.transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """[T, T], True where a token sees another: itself and the `window - 1` before it."""
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    return (distance >= 0) & (distance < window)
