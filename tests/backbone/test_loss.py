from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.support.pretended_device import move, pretended_device
from tests.tiny import TARGETS, tiny_adapter, tiny_backbone, tiny_examples
from torch import Tensor

from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded, collate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses, make_batch, token_losses
from pomona.backbone.speed import Packing, Switch, switched_on

CPU = torch.device("cpu")
PAD = 0


def losses_from_all_logits(backbone: Backbone, example: Encoded) -> Tensor:
    """Each completion token's loss, [N], from one unpadded example's full logits."""
    tokens = torch.tensor([example.tokens])
    logits = backbone.model(input_ids=tokens).logits[0]
    log_probabilities = F.log_softmax(logits, dim=-1)
    places = range(example.completion_start, len(example))
    return torch.stack([-log_probabilities[place - 1, example.tokens[place]] for place in places])


def test_token_losses_are_those_of_all_logits_at_completion_positions(backbone: Backbone) -> None:
    examples = tiny_examples(4, completion=3)
    with torch.no_grad():
        grid = token_losses(backbone, collate(examples, PAD, CPU))
    for row, example in zip(grid, examples, strict=True):
        expected = torch.zeros(len(row))
        expected[example.completion_start : len(example)] = losses_from_all_logits(backbone, example)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)


def test_gradients_of_a_padded_batch_are_the_sum_of_single_examples(backbone: Backbone) -> None:
    """Nothing of the padding reaches a gradient."""
    examples = tiny_examples(4, seed=5)
    assert len({len(example) for example in examples}) > 2
    adapter = tiny_adapter(backbone, targets=TARGETS[backbone.name.removeprefix("tiny-")])
    with attached(backbone, [adapter]) as attachment:
        parameters = list(attachment.parameters().values())
        got = torch.autograd.grad(token_losses(backbone, collate(examples, PAD, CPU)).sum(), parameters)
        total = torch.stack([losses_from_all_logits(backbone, example).sum() for example in examples]).sum()
        expected = torch.autograd.grad(total, parameters)
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("pad", [PAD, 2, 77])
def test_padding_changes_no_examples_loss_whatever_its_token(backbone: Backbone, pad: int) -> None:
    short, long = tiny_examples(1, seed=1, shortest=6, longest=6)[0], tiny_examples(1, seed=2, shortest=30, longest=30)[0]
    with torch.no_grad():
        alone = token_losses(backbone, collate([short], pad, CPU))[0]
        padded = token_losses(backbone, collate([short, long], pad, CPU))[0]
    torch.testing.assert_close(padded[: len(short)], alone, atol=1e-5, rtol=0)
    assert not padded[len(short) :].any()


def test_completion_at_the_very_end_and_right_after_one_prompt_token(llama: Backbone) -> None:
    examples = [Encoded((5, 6, 7, 8), 1), Encoded((9, 10, 11, 12), 3)]
    with torch.no_grad():
        grid = token_losses(llama, collate(examples, PAD, CPU))
        for row, example in zip(grid, examples, strict=True):
            expected = losses_from_all_logits(llama, example)
            torch.testing.assert_close(row[example.completion_start :], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_example_losses_are_means_per_token_in_the_order_given(llama: Backbone, batch_size: int) -> None:
    examples = [*tiny_examples(4, seed=1, completion=2), *tiny_examples(3, seed=2, completion=5)]
    with torch.no_grad():
        expected = [float(losses_from_all_logits(llama, example).mean()) for example in examples]
    assert example_losses(llama, examples, batch_size) == pytest.approx(expected, abs=1e-5)


def test_example_losses_of_nothing(llama: Backbone) -> None:
    assert example_losses(llama, [], 4) == []


def test_example_losses_keep_no_graph(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        losses = example_losses(llama, tiny_examples(2), 2)
        assert all(isinstance(loss, float) for loss in losses)
        assert all(parameter.grad is None for parameter in attachment.parameters().values())


def test_a_batch_beyond_memory_is_halved_and_an_example_that_never_fits_has_no_loss(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [*tiny_examples(5, seed=1, completion=2), *tiny_examples(1, seed=2, shortest=20, longest=20)]
    expected = example_losses(llama, examples, 6)
    longest = max(map(len, examples))
    monkeypatch.setitem(vars(llama), "speed", llama.speed.without(Packing))
    forward, given = llama.model.base_model.forward, []

    def limited(input_ids: torch.Tensor, **state: object) -> object:
        given.append(tuple(input_ids.shape))
        if len(input_ids) > 2 or input_ids.shape[1] == longest:
            raise torch.OutOfMemoryError("out of memory")
        return forward(input_ids=input_ids, **state)

    monkeypatch.setattr(llama.model.base_model, "forward", limited)
    found = example_losses(llama, examples, 6)
    lost = [place for place, example in enumerate(examples) if len(example) == longest]
    assert [place for place, loss in enumerate(found) if math.isnan(loss)] == lost != []
    assert [loss for loss in found if not math.isnan(loss)] == pytest.approx(
        [loss for place, loss in enumerate(expected) if place not in lost], abs=1e-5
    )
    assert given[0][0] == 6


@pytest.mark.parametrize("speed", ["auto", "off"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_gpu_is_not_waited_for(architecture: str, speed: Switch) -> None:
    """Forward and backward, with the completion head and with the model's own, on padded batches; and one read for all losses."""
    backbone = tiny_backbone(architecture)
    examples = tiny_examples(3, seed=4)
    with pretended_device() as device, attached(backbone, [tiny_adapter(backbone)]) as attachment:
        move(backbone.model)
        there = replace(backbone, speed=switched_on(backbone.model, speed))
        device.reset()
        token_losses(there, make_batch(there, examples)).sum().backward()
        assert device.reset().synchronisations == 0
        assert all(parameter.grad is not None for parameter in attachment.parameters().values())
        found = example_losses(there, examples, 3)
        assert device.reset().synchronisations == 1
    assert found == pytest.approx(example_losses_one_by_one(architecture, examples), abs=1e-5)


def example_losses_one_by_one(architecture: str, examples: list[Encoded]) -> list[float]:
    backbone = tiny_backbone(architecture)
    with attached(backbone, [tiny_adapter(backbone)]), torch.no_grad():
        return [float(losses_from_all_logits(backbone, example).mean()) for example in examples]
