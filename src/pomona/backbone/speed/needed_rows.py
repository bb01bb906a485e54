"""The last layer after its attention, for read tokens alone: worth most where prompts are long and layers few.

`python -m benchmarks train_speed` measures a step with it.

A loss over completions reads the last hidden states of a few tokens. The earlier layers must compute all of them, since later
tokens attend to them; in the last layer nothing follows the attention but maps of single tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pomona.backbone.speed.base import SpeedUp, speed_ups
from pomona.backbone.trainable.base import AdaptedModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AFTER_ATTENTION = ("mlp", "self_attn.o_proj", "attn.c_proj")
"""What transformers calls the parts of a layer that map single tokens after the attention, the last first, where it has them."""


@speed_ups.register("needed_rows")
@dataclass(frozen=True)
class NeededRows(SpeedUp):
    """The end of the last layer is computed only for the tokens whose hidden state is read."""

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: where `can_leave_rows_out`."""
        return can_leave_rows_out(model)

    def hidden_pass(self, model: PreTrainedModel, needed: Int[Tensor, " N"]) -> AbstractContextManager[None]:
        """See `SpeedUp.hidden_pass`."""
        return only_rows(model, needed)


@contextmanager
def only_rows(model: PreTrainedModel, needed: Int[Tensor, " N"]) -> Iterator[None]:
    """Within the block, last hidden states are right at the places `needed`, counted row by row, and mean nothing elsewhere.

    Nothing is left out before or in a part with an adapter, whose statistics are of all tokens, nor where the layer is to be
    computed again in the backward pass, which is after the block.
    """
    parts = _last_parts(model)
    try:
        for part in parts:
            part.forward = partial(_on_rows, part.forward, needed)
        yield
    finally:
        for part in parts:  # an interrupt may have come between two of them
            vars(part).pop("forward", None)


@torch.no_grad()
def can_leave_rows_out(model: PreTrainedModel) -> bool:
    """Whether the needed rows come out the same when only they are computed. Tried on a short text."""
    tokens = torch.arange(7, device=model.device)[None] % model.config.get_text_config().vocab_size
    needed = torch.tensor([1, 2, 5], device=model.device)
    try:
        expected = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0, needed]
        with only_rows(model, needed):
            found = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0, needed]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return False
    return bool((found - expected).abs().max() <= 64 * torch.finfo(found.dtype).eps * expected.abs().max())


def _last_parts(model: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or "forward" in vars(layers[-1]):
        return []
    named = dict(layers[-1].named_modules())
    parts = [named[name] for name in _AFTER_ATTENTION if name in named]
    return list(takewhile(lambda part: not any(isinstance(module, AdaptedModule) for module in part.modules()), parts))


def _on_rows(forward: Callable[..., Tensor], needed: Int[Tensor, " N"], x: Tensor, *others: Any) -> Tensor:
    rows = forward(x.flatten(0, -2).index_select(0, needed)[None], *others)[0]
    grid = torch.zeros(x.shape[:-1].numel(), rows.shape[-1], dtype=rows.dtype, device=rows.device)
    return grid.index_copy(0, needed, rows).view(*x.shape[:-1], -1)
