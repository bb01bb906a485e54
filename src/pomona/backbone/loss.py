"""The completion's negative log-likelihood, with logits computed for completion positions only.

The output head is a large part of a small model (a third of SmolLM2's arithmetic, far more of Gemma 3 270M's), and a prompt's
logits are never used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pomona.backbone.batches import Batch, Encoded, collate, evaluation_order
from pomona.backbone.load import Backbone
from pomona.backbone.memory import each_batch


def token_losses(backbone: Backbone, batch: Batch) -> Float[Tensor, "B T"]:
    """Negative log-likelihood of each completion token, 0 elsewhere, nats, fp32.

    Position t holds the loss of predicting token t from the tokens before it. Differentiable.
    """
    predicts = torch.zeros_like(batch.completion)
    predicts[:, :-1] = batch.completion[:, 1:]
    logits_NV = backbone.model(input_ids=batch.tokens, logits_to_keep=predicts, use_cache=False).logits
    losses_N = F.cross_entropy(logits_NV.float(), batch.tokens[batch.completion], reduction="none")
    # Both masks are read row by row, so the n-th kept position predicts the n-th completion token.
    grid = torch.zeros(batch.tokens.shape, dtype=losses_N.dtype, device=losses_N.device)
    return grid.masked_scatter(batch.completion, losses_N)


@torch.no_grad()
def example_losses(backbone: Backbone, examples: Sequence[Encoded], batch_size: int) -> list[float]:
    """Mean loss of each example's completion tokens, nats per token, in the order given. No gradient, no dropout.

    Batches that memory does not hold are halved; the loss of an example that does not fit by itself is NaN.
    """
    pad = int(backbone.tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    losses = [math.nan] * len(examples)

    def means(indices: Sequence[int]) -> list[float]:
        batch = collate([examples[index] for index in indices], pad, backbone.device)
        return (token_losses(backbone, batch).sum(dim=1) / batch.completion.sum(dim=1)).tolist()

    for indices, found in each_batch(evaluation_order([len(example) for example in examples], batch_size), means):
        for index, loss in zip(indices, found or (), strict=found is not None):
            losses[index] = loss
    return losses
