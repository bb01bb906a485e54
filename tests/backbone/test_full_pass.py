from __future__ import annotations

import pytest
import torch
from tests.backbone.plain_norms import assert_norms, batch_of, plain_squares
from tests.tiny import TARGETS, tiny_adapter, tiny_examples

from pomona.backbone.attach import Attachment, attached
from pomona.backbone.full_pass import FullPassNorms
from pomona.backbone.load import Backbone
from pomona.backbone.loss import token_losses
from pomona.backbone.statistics import StreamedNorms
from pomona.backbone.trainable import Linear


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_pass_gives_what_a_loop_over_unpadded_examples_gives(backbone: Backbone, batch_size: int) -> None:
    examples = tiny_examples(7, seed=4, shortest=5, longest=20)
    adapters = [tiny_adapter(backbone, seed, targets=TARGETS[backbone.name.removeprefix("tiny-")]) for seed in range(2)]
    with attached(backbone, adapters, how=Linear()) as attachment:
        norms = FullPassNorms(attachment, examples, batch_size)
        norms.prepare()
        assert_norms(norms, plain_squares(backbone, attachment, examples))


def test_each_pass_sees_the_present_factors_and_forgets_the_last_pass(llama: Backbone) -> None:
    examples = tiny_examples(4)
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = FullPassNorms(attachment, examples, 2)
        norms.prepare()
        with torch.no_grad():
            for parameter in attachment.parameters().values():
                parameter.mul_(3.0)
        norms.prepare()
        assert_norms(norms, plain_squares(llama, attachment, examples))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_dropped_learned_or_left_behind(llama: Backbone, training: bool) -> None:
    examples = tiny_examples(4)
    with attached(llama, [tiny_adapter(llama)], dropout=0.9) as attachment:
        norms = FullPassNorms(attachment, examples, 2)
        attachment.train(training)
        norms.prepare()
        assert {layer.training for layer in attachment.layers.values()} == {training}
        assert all(layer.observer is None for layer in attachment.layers.values())
        assert all(parameter.grad is None for parameter in attachment.parameters().values())
        attachment.train(False)
        assert_norms(norms, plain_squares(llama, attachment, examples))


def test_training_batches_are_not_its_concern(llama: Backbone) -> None:
    examples = tiny_examples(4)
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = FullPassNorms(attachment, examples, 4)
        norms.prepare()
        norms.begin_batch(batch_of(llama, examples).content)
        token_losses(llama, batch_of(llama, examples))
        norms.end_batch()
        norms.end_step()
        assert norms.state() == {}
        norms.load_state({})
        assert_norms(norms, plain_squares(llama, attachment, examples))


def spread(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far the ratio of two norms is from a constant."""
    ratio = one / other
    return float(ratio.max() / ratio.min()) - 1


def streamed(attachment: Attachment, forgetting: float) -> StreamedNorms:
    """Norms of eight examples, in four steps an epoch, over five epochs with the same factors."""
    examples = tiny_examples(8, seed=5)
    norms = StreamedNorms(attachment, forgetting)
    attachment.train(True)
    for first in (0, 2, 4, 6) * 5:
        batch = batch_of(attachment.backbone, examples[first : first + 2])
        norms.begin_batch(batch.content)
        token_losses(attachment.backbone, batch)
        norms.end_batch()
        norms.end_step()
    attachment.train(False)
    return norms


def test_streamed_norms_agree_with_a_full_pass_while_factors_stand_still(llama: Backbone) -> None:
    """But for the constant that no mask depends on, and the less they forget within an epoch the better."""
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        exact = FullPassNorms(attachment, tiny_examples(8, seed=5), 8)
        exact.prepare()
        found = [streamed(attachment, forgetting) for forgetting in (0.5, 0.9, 0.99, 1.0)]
        for path in attachment.layers:
            inputs = [spread(norms[path].input_norm_I, exact[path].input_norm_I) for norms in found]
            hidden = [spread(norms[path].hidden_norm_R, exact[path].hidden_norm_R) for norms in found]
            for off in (inputs, hidden):
                assert off[0] > off[1] > off[2] > off[3]
                assert off[2] < 0.02
                assert off[3] < 1e-5
