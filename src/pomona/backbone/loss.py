"""The completion's negative log-likelihood, with logits computed for completion positions only.

The output head is a large part of a small model (a third of SmolLM2's arithmetic, far more of Gemma 3 270M's), and a prompt's
logits are never used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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


def hidden_states(backbone: Backbone, batch: Batch, needed: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T H"]:
    """The model without its output head: last hidden states, after the final norm. Differentiable.

    Args:
        backbone: the model.
        batch: in either layout.
        needed: where the states are read; elsewhere they may mean nothing. None: everywhere.
    """
    with backbone.speed.hidden_pass(backbone.model, needed) if needed is not None else nullcontext():
        if batch.lengths is not None:
            return packed_states(backbone.model, batch.tokens, batch.lengths)
        return backbone.model.base_model(input_ids=batch.tokens, use_cache=False).last_hidden_state


def token_losses(backbone: Backbone, batch: Batch) -> Float[Tensor, "B T"]:
    """Negative log-likelihood of each completion token, 0 elsewhere, nats, fp32.

    Position t holds the loss of predicting token t from the tokens before it. Differentiable.
    """
    predicts = torch.zeros_like(batch.completion)
    predicts[:, :-1] = batch.completion[:, 1:]
    targets_N = batch.tokens[batch.completion]
    head = backbone.model.get_output_embeddings()
    if CompletionHead in backbone.speed:
        assert isinstance(head, nn.Linear)
        hidden_NH = hidden_states(backbone, batch, predicts)[predicts]
        of_frozen = product if FrozenProducts in backbone.speed else F.linear
        losses_N = completion_loss(hidden_NH, head.weight, head.bias, targets_N, of_frozen)
    else:
        if batch.lengths is None:
            logits_NV = backbone.model(input_ids=batch.tokens, logits_to_keep=predicts, use_cache=False).logits
        elif Packing in backbone.speed:  # so the head is plain
            assert isinstance(head, nn.Linear)
            logits_NV = head(hidden_states(backbone, batch, predicts)[predicts])
        else:
            raise ValueError("a packed batch needs a model that packs")
        losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    # Both masks are read row by row, so the n-th kept position predicts the n-th completion token.
    grid = torch.zeros(batch.tokens.shape, dtype=losses_N.dtype, device=losses_N.device)
    return grid.masked_scatter(batch.completion, losses_N)


@torch.no_grad()
def example_losses(backbone: Backbone, examples: Sequence[Encoded], batch_size: int) -> list[float]:
    """Mean loss of each example's completion tokens, nats per token, in the order given. No gradient, no dropout.

    Batches that memory does not hold are halved; the loss of an example that does not fit by itself is NaN.
    """
    losses = [math.nan] * len(examples)

    def means(indices: Sequence[int]) -> list[float]:
        chosen = [examples[index] for index in indices]
        batch = make_batch(backbone, chosen)
        of_tokens = token_losses(backbone, batch)[batch.completion]
        counts = [len(example) - example.completion_start for example in chosen]
        return [float(part.mean()) for part in of_tokens.split(counts)]

    for indices, found in each_batch(evaluation_order([len(example) for example in examples], batch_size), means):
        for index, loss in zip(indices, found or (), strict=found is not None):
            losses[index] = loss
    return losses
