from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tiny import TARGETS, tiny_adapter, tiny_examples
from torch import Tensor

from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.backbone.loss import make_batch, token_losses
from pomona.backbone.speed.activations_again import activations_again


def test_gradients_are_the_same_to_the_last_bit(backbone: Backbone) -> None:
    adapter = tiny_adapter(backbone, targets=TARGETS[backbone.name.removeprefix("tiny-")])
    batch = make_batch(backbone, tiny_examples(4, seed=3))
    with attached(backbone, [adapter]) as attachment:
        parameters = list(attachment.parameters().values())
        expected = torch.autograd.grad(token_losses(backbone, batch).sum(), parameters)
        with activations_again(backbone.model):
            loss = token_losses(backbone, batch).sum()
        found = torch.autograd.grad(loss, parameters)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 1e-2
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("again", [False, True])
def test_outputs_of_activation_functions_are_not_kept(llama: Backbone, again: bool) -> None:
    batch = make_batch(llama, tiny_examples(2))
    functions = [module for path, module in llama.model.named_modules() if path.endswith(".act_fn")]
    with attached(llama, [tiny_adapter(llama)]):
        if again:
            with activations_again(llama.model):
                loss = token_losses(llama, batch).sum()
        else:
            loss = token_losses(llama, batch).sum()
        kept = _kept(loss)
    assert functions
    assert not any(module._forward_hooks for module in functions)
    wide = batch.tokens.numel() * llama.model.config.intermediate_size
    # The last layer's MLP sees completions alone.
    assert kept.count(wide) == (2 if again else 3) * (len(functions) - 1)


def _kept(loss: Tensor) -> list[int]:
    """The sizes of all tensors that stand in the graph as they are."""
    sizes: dict[int, int] = {}
    seen: set[Any] = set()
    pending: list[Any] = [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for name in dir(node):
            saved = getattr(node, name) if name.startswith("_raw_saved_") else None
            if saved is None or not hasattr(saved, "data"):
                continue
            data = saved.data
            if isinstance(data, Tensor):
                sizes[data.data_ptr()] = data.numel()
        pending += [one for one, _ in node.next_functions]
    return list(sizes.values())
