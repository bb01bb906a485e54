"""The completion's negative log-likelihood, with logits computed for completion positions only.

The output head is a large part of a small model (a third of SmolLM2's arithmetic, far more of Gemma 3 270M's), and a prompt's
logits are never used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pomona.backbone.batches import Batch, Encoded, collate, evaluation_order, pack
from pomona.backbone.load import Backbone
from pomona.backbone.memory import each_batch
from pomona.backbone.speed import CompletionHead, FrozenProducts, Packing
from pomona.backbone.speed.completion_head import completion_loss
from pomona.backbone.speed.frozen_products import product
from pomona.backbone.speed.packing import packed_states


def make_batch(backbone: Backbone, examples: Sequence[Encoded]) -> Batch:
    """The examples in the layout that is faster on this model and device: packed, or padded."""
    if Packing in backbone.speed:
        return pack(examples, backbone.device)
    return collate(examples, backbone.pad_id, backbone.device)


def hidden_states(backbone: Backbone, batch: Batch, needed: Int[Tensor, " N"] | None = None) -> Float[Tensor, "B T H"]:
    """The model without its output head: last hidden states, after the final norm. Differentiable.

    Args:
        backbone: the model.
        batch: in either layout.
        needed: places of the tokens whose states are read, counted row by row; others may mean nothing. None: all.
    """
    with backbone.speed.hidden_pass(backbone.model, needed) if needed is not None else nullcontext():
        if batch.lengths is not None:
            return packed_states(backbone.model, batch.tokens, batch.lengths)
        with _a_sequence_a_row():
            return backbone.model.base_model(input_ids=batch.tokens, use_cache=False).last_hidden_state


def token_losses(backbone: Backbone, batch: Batch) -> Float[Tensor, "B T"]:
    """Negative log-likelihood of each completion token, 0 elsewhere, nats, fp32.

    Position t holds the loss of predicting token t from the tokens before it. Differentiable.
    """
    predicts_N = batch.targets - 1  # a completion follows a prompt in its row
    targets_N = _rows(batch.tokens, batch.targets)
    head = backbone.model.get_output_embeddings()
    if CompletionHead in backbone.speed:
        assert isinstance(head, nn.Linear)
        hidden_NH = _rows(hidden_states(backbone, batch, predicts_N), predicts_N)
        of_frozen = product if FrozenProducts in backbone.speed else F.linear
        losses_N = completion_loss(hidden_NH, head.weight, head.bias, targets_N, of_frozen)
    else:
        if batch.lengths is None:
            assert head is not None
            with _head_reads(head, predicts_N), _a_sequence_a_row():
                logits_NV = backbone.model(input_ids=batch.tokens, use_cache=False).logits
        elif Packing in backbone.speed:  # so the head is plain
            assert isinstance(head, nn.Linear)
            logits_NV = head(_rows(hidden_states(backbone, batch, predicts_N), predicts_N))
        else:
            raise ValueError("a packed batch needs a model that packs")
        losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    grid = torch.zeros(batch.tokens.numel(), dtype=losses_N.dtype, device=losses_N.device)
    return grid.index_copy(0, batch.targets, losses_N).view(batch.tokens.shape)


def _rows(grid: Tensor, places: Int[Tensor, " N"]) -> Tensor:
    """The entries [N, ...] of a tensor [B, T, ...] at these places."""
    return grid.flatten(0, 1).index_select(0, places)


@contextmanager
def _head_reads(head: nn.Module, places: Int[Tensor, " N"]) -> Iterator[None]:
    """Within the block the output head gets the hidden states at these places alone."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (_rows(inputs[0], places), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _a_sequence_a_row() -> Iterator[None]:
    """Within the block transformers does not look for packed sequences: it would wait for the device to learn of none."""
    from transformers import masking_utils

    find = vars(masking_utils).get("find_packed_sequence_indices")
    if find is None:  # another version, which looks elsewhere or not at all
        yield
        return
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = find


def example_means(grid: Float[Tensor, "B T"], batch: Batch, examples: Sequence[Encoded]) -> Float[Tensor, " E"]:
    """Mean of `token_losses` over each example's completion, nats per token."""
    of_tokens = grid.flatten().index_select(0, batch.targets)
    return torch.stack([part.mean() for part in of_tokens.split([len(one) - one.completion_start for one in examples])])


@torch.no_grad()
def example_losses(backbone: Backbone, examples: Sequence[Encoded], batch_size: int) -> list[float]:
    """Mean loss of each example's completion tokens, nats per token, in the order given. No gradient, no dropout.

    The examples are shared out over the ranks of the model's engine. Batches that memory does not hold are halved; the loss of an
    example that does not fit by itself is NaN.
    """
    with backbone.engine.autocast(backbone.device):
        return backbone.engine.map(examples, lambda mine: _example_losses(backbone, mine, batch_size))


def _example_losses(backbone: Backbone, examples: Sequence[Encoded], batch_size: int) -> list[float]:
    losses = [math.nan] * len(examples)

    def means(indices: Sequence[int]) -> list[float]:
        chosen = [examples[index] for index in indices]
        batch = make_batch(backbone, chosen)
        return example_means(token_losses(backbone, batch), batch, chosen).tolist()

    for indices, found in each_batch(evaluation_order([len(example) for example in examples], batch_size), means):
        for index, loss in zip(indices, found or (), strict=found is not None):
            losses[index] = loss
    return losses
