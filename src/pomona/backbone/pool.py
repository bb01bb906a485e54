"""Many adapters of one model, each scored on the same examples: its loss, and how well the loss's gradient agrees with its update.

Axes: K adapters, R rank, I input features, O output features, S rows of the sketch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.measure import delta_norm
from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded, evaluation_order
from pomona.backbone.candidates import candidate_losses
from pomona.backbone.gradient_checkpointing import gradient_checkpointing
from pomona.backbone.load import Backbone
from pomona.backbone.loss import make_batch, token_losses
from pomona.errors import PomonaError

SKETCH = 256
"""Rows of the random matrix that estimates the norm of a gradient; with no more input features than that, the norm is exact."""


def pool_losses(backbone: Backbone, adapters: Sequence[Adapter], examples: Sequence[Encoded], max_tokens: int) -> list[float]:
    """The mean loss per completion token over all examples, nats: of the bare model, then with each adapter. No gradient.

    The adapters share forward passes (`pomona.backbone.candidates`), padded with zeros to one rank.

    Args:
        backbone: the frozen model.
        adapters: K >= 1, of any modules and ranks.
        examples: one or more.
        max_tokens: largest number of tokens of one forward pass, over all adapters in it.

    Raises:
        PomonaError: a loss is NaN or infinite, also where memory does not hold an example.
    """
    shapes, ranks = backbone.shapes(), _ranks(backbone, adapters)
    zero = {m: Factors(torch.zeros(rank, shapes[m][1]), torch.zeros(shapes[m][0], rank)) for m, rank in ranks.items()}
    candidates = [_padded(adapter, zero) for adapter in (Adapter({}), *adapters)]
    with attached(backbone, [Adapter(zero, backbone.name)]) as attachment:
        device = backbone.device
        placed = [{name: value.to(device) for name, value in candidate.items()} for candidate in candidates]
        rows = candidate_losses(attachment, examples, placed, max_tokens)
    counts = [len(example) - example.completion_start for example in examples]
    losses = [math.fsum(mean * count for mean, count in zip(row, counts, strict=True)) / sum(counts) for row in rows]
    for place, loss in enumerate(losses):
        if not math.isfinite(loss):
            what = "the bare model" if place == 0 else f"adapter {place} of the pool"
            raise PomonaError(f"the training loss of {what} is not finite", value=loss, fix="Load the model in dtype float32")
    return losses


def agreements(
    backbone: Backbone,
    adapters: Sequence[Adapter],
    examples: Sequence[Encoded],
    batch_size: int,
    generator: torch.Generator,
    *,
    checkpointing: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """How well a step down the loss agrees with each adapter's update: `-<G, D_k> / (||G|| ||D_k||)`, in [-1, 1].

    G is the gradient of the mean loss per completion token by the weights of all modules that any adapter adapts, at the bare
    model, and D_k = s_k B_k A_k the adapter's update, zero where it adapts nothing; a zero update has agreement 0. No dense
    gradient is made: the rows of all A_k, and S random rows Q, are attached as one adapter with B = 0, so that one backward pass
    gives `G [A_1; ..; A_K; Q]^T`, and `<G, D_k> = s_k <G A_k^T, B_k>`. With `E[Q^T Q] = 1`, `||G||^2` is estimated by
    `||G Q^T||^2`, or is exact where Q is the identity. It is one number for all adapters, so their order does not depend on the
    estimate.

    Args:
        backbone: the frozen model.
        adapters: K >= 1, of any modules and ranks.
        examples: one or more.
        batch_size: examples per batch.
        generator: draws Q; on the CPU.
        checkpointing: recompute activations in the backward pass, which saves memory.
        advance: called with the number of examples done after each batch.

    Raises:
        PomonaError: the gradient is NaN or infinite.
    """
    shapes = backbone.shapes()
    factors = {}
    for module in _ranks(backbone, adapters):
        out_features, in_features = shapes[module]
        rows = [adapter[module].A.detach().float() for adapter in adapters if module in adapter]
        A = torch.cat([*rows, _sketch(in_features, generator)])
        factors[module] = Factors(A, torch.zeros(out_features, len(A)))
    with attached(backbone, [Adapter(factors, backbone.name)]) as attachment:
        targets = sum(len(example) - example.completion_start for example in examples)
        attachment.train(True)
        with gradient_checkpointing(backbone) if checkpointing else nullcontext():
            for indices in evaluation_order([len(example) for example in examples], batch_size):
                batch = make_batch(backbone, [examples[index] for index in indices])
                # Gradient checkpointing already recomputes the activation functions within the layers.
                with nullcontext() if checkpointing else backbone.speed.training_pass(backbone.model):
                    loss = token_losses(backbone, batch).sum() / targets
                loss.backward()
                advance(len(indices))
        attachment.train(False)
        found = {path: layer.B.grad for path, layer in attachment.layers.items()}
    gradients = {path: gradient.detach().float().cpu() for path, gradient in found.items() if gradient is not None}
    return _cosines(adapters, gradients)


def _cosines(adapters: Sequence[Adapter], gradients: Mapping[str, Float[Tensor, "O N"]]) -> list[float]:
    """From each module's `G [A_1; ..; A_K; Q]^T`, its columns in the order of the adapters that have the module."""
    inner, squares, size = [0.0] * len(adapters), [0.0] * len(adapters), 0.0
    for module, gradient in gradients.items():
        first = 0
        for place, adapter in enumerate(adapters):
            if module not in adapter:
                continue
            pair = adapter[module]
            columns = gradient[:, first : first + pair.rank].double()
            first += pair.rank
            inner[place] += pair.scaling * float((columns * pair.B.detach().cpu().double()).sum())
            squares[place] += delta_norm(pair) ** 2
        size += float(gradient[:, first:].double().square().sum())
    if not math.isfinite(size):
        raise PomonaError("the gradient of the training loss is not finite", value=size, fix="Load the model in dtype float32")
    sizes = [math.sqrt(size * square) for square in squares]
    return [-one / norm if norm > 0 else 0.0 for one, norm in zip(inner, sizes, strict=True)]


def _sketch(in_features: int, generator: torch.Generator) -> Float[Tensor, "S I"]:
    """Q with `E[Q^T Q] = 1`."""
    if in_features <= SKETCH:
        return torch.eye(in_features)
    return torch.randn(SKETCH, in_features, generator=generator) / math.sqrt(SKETCH)


def _ranks(backbone: Backbone, adapters: Sequence[Adapter]) -> dict[str, int]:
    """Every module that any adapter adapts, in the model's order -> the largest rank there."""
    linear = backbone.linear_modules()
    return {m: max(one[m].rank for one in adapters if m in one) for m in linear if any(m in one for one in adapters)}


def _padded(adapter: Adapter, zero: Mapping[str, Factors]) -> dict[str, Tensor]:
    """The adapter's factors by parameter name, the scaling in A, padded with zeros to the shapes of `zero`."""
    found: dict[str, Tensor] = {}
    for module, like in zero.items():
        A, B = torch.zeros_like(like.A), torch.zeros_like(like.B)
        if module in adapter:
            pair = adapter[module]
            A[: pair.rank] = pair.A.detach() * pair.scaling
            B[:, : pair.rank] = pair.B.detach()
        found |= {f"{module}.A": A, f"{module}.B": B}
    return found
