"""The norms of adapted modules in float64, one unpadded example after the other: what all statistics are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Batch, Encoded, collate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import make_batch
from pomona.backbone.speed import Packing
from pomona.backbone.statistics import Norms
from pomona.backbone.trainable.base import AdaptedModule

Squares = dict[str, tuple[Tensor, Tensor]]
"""Module -> sums of squares over tokens of its input and of its hidden values, without a constant that both may share."""


def plain_squares(backbone: Backbone, attachment: Attachment, examples: Sequence[Encoded]) -> Squares:
    squares: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in attachment.layers}

    def keeper(path: str, layer: AdaptedModule) -> Callable[[nn.Module, Any], None]:
        def keep(module: nn.Module, args: Any) -> None:
            x = args[0].flatten(0, -2).double()  # one example: [1, T, I], or [T, I]
            squares[path] += [(token**2, (layer.effective().A.double() @ token) ** 2) for token in x]

        return keep

    hooks = [layer.register_forward_pre_hook(keeper(path, layer)) for path, layer in attachment.layers.items()]
    with torch.no_grad():
        for example in examples:
            backbone.model(input_ids=torch.tensor([example.tokens]))
    for hook in hooks:
        hook.remove()
    return {path: (sum_of([one for one, _ in rows]), sum_of([other for _, other in rows])) for path, rows in squares.items()}


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(dim=0)


def assert_norms(norms: Norms, expected: Squares, tokens: float = 1.0) -> None:
    """The norms are the roots of the squares over `tokens`."""
    assert expected
    for path, (inputs, hidden) in expected.items():
        assert inputs.min() > 0
        assert hidden.min() > 0
        torch.testing.assert_close(norms[path].input_norm_I.double(), (inputs / tokens).sqrt(), atol=0, rtol=2e-6)
        torch.testing.assert_close(norms[path].hidden_norm_R.double(), (hidden / tokens).sqrt(), atol=0, rtol=2e-5)


def tokens_of(examples: Sequence[Encoded]) -> int:
    return sum(map(len, examples))


def batch_of(backbone: Backbone, examples: Sequence[Encoded], packed: bool = False) -> Batch:
    """Examples in either layout."""
    assert Packing in backbone.speed
    batch = make_batch(backbone, examples) if packed else collate(examples, 0, backbone.device)
    assert batch.content.all() == (packed or len(set(map(len, examples))) == 1)
    return batch
