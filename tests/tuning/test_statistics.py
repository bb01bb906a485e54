"""What is gathered for a metric, when, and that what no metric reads costs nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_examples
from tests.tuning.runs import train

import pomona.backbone.full_pass as full_pass_module
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.loss import make_batch, token_losses
from pomona.backbone.trainable import Linear
from pomona.control import Fixed
from pomona.errors import InputError
from pomona.importance import DeltaSensitivity, Gradient, GradientActivation, GradientSmoothed, Magnitude, Wanda
from pomona.tuning.settings import Pruning
from pomona.tuning.statistics import Statistics

TRAIN = tiny_examples(4, seed=5)


def stepped(attachment: Attachment, pruning: Pruning) -> tuple[Statistics, list[str]]:
    """The statistics of one step of two batches, and the modules that were watched, once for each batch."""
    statistics = Statistics(attachment, pruning, TRAIN, 2)
    watched: list[str] = []
    for examples in (TRAIN[:2], TRAIN[2:]):
        batch = make_batch(attachment.backbone, examples)
        statistics.before_forward(batch)
        watched += [path for path, layer in attachment.layers.items() if layer.observer is not None]
        loss = token_losses(attachment.backbone, batch).sum()
        statistics.after_forward()
        assert all(layer.observer is None for layer in attachment.layers.values())
        loss.backward()
    statistics.after_backward()
    statistics.prepare()
    return statistics, watched


@pytest.mark.parametrize(
    ("pruning", "norms", "gradients", "averages"),
    [
        (Pruning(Magnitude()), False, False, False),
        (Pruning(Wanda()), True, False, False),
        (Pruning(Gradient()), False, True, False),
        (Pruning(GradientActivation()), True, True, False),
        (Pruning(GradientSmoothed()), False, True, True),
        (Pruning(Magnitude(), granularity="module"), True, False, False),
    ],
)
def test_only_read_entries_are_gathered(llama: Backbone, pruning: Pruning, norms: bool, gradients: bool, averages: bool) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        statistics, watched = stepped(attachment, pruning)
        assert watched == (2 * list(attachment.layers) if norms else [])
        for path in attachment.layers:
            found = statistics[path]
            assert bool(found.input_norm_I.any()) == bool(found.hidden_norm_R.any()) == norms
            assert (found.gradient is not None) == gradients
            assert (found.smoothed is not None) == averages
        assert bool(statistics.state["gradients"]) == gradients


def test_streamed_norms_and_a_full_pass_over_the_same_examples_agree(llama: Backbone) -> None:
    """Up to one constant: the streamed ones are means over tokens."""
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        streamed, _ = stepped(attachment, Pruning())
        exact, watched = stepped(attachment, Pruning(activations="full_pass"))
        assert watched == []
        tokens = sum(map(len, TRAIN))
        for path in attachment.layers:
            torch.testing.assert_close(exact[path].input_norm_I, streamed[path].input_norm_I * tokens**0.5, atol=0, rtol=1e-5)
            torch.testing.assert_close(exact[path].hidden_norm_R, streamed[path].hidden_norm_R * tokens**0.5, atol=0, rtol=1e-5)


def test_published_norms_are_one_vector_a_layer(llama: Backbone) -> None:
    pruning = Pruning(DeltaSensitivity(), paper=True)
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        statistics, watched = stepped(attachment, pruning)
        assert watched == []
        query, value = (f"model.layers.1.self_attn.{name}_proj" for name in "qv")
        assert torch.equal(statistics[query].input_norm_I, statistics[value].input_norm_I)
        # After the norm each token has the length sqrt(I), so these are the tokens' lengths together.
        total = statistics[query].input_norm_I.square().sum()
        assert float(total) == pytest.approx(32 * sum(map(len, TRAIN)), rel=1e-4)
    with attached(llama, [tiny_adapter(llama, targets=["down_proj"])]) as attachment, pytest.raises(InputError):
        Statistics(attachment, pruning, TRAIN, 2)


@pytest.mark.parametrize(
    ("activations", "interval_steps", "passes"), [("full_pass", 1, 9), ("full_pass", 4, 5), ("streamed", 1, 0)]
)
def test_a_full_pass_is_made_for_each_selection_and_for_no_other_reason(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, activations: Any, interval_steps: int, passes: int
) -> None:
    """At each of 8 steps, or at the ends of the 4 epochs, and once more in the end, for the record's importance."""
    seen: list[int] = []
    states = full_pass_module.hidden_states

    def spy(backbone: Backbone, batch: Any) -> Any:
        seen.append(len(batch.lengths))
        return states(backbone, batch)

    monkeypatch.setattr(full_pass_module, "hidden_states", spy)
    pruning = Pruning(activations=activations, interval_steps=interval_steps)
    train(llama, pruning=pruning, controller=Fixed(0.5))
    assert seen == passes * [2, 2, 2, 1]  # the 7 examples in batches of 2


def test_the_state_goes_through_a_checkpoint(llama: Backbone) -> None:
    pruning = Pruning(GradientSmoothed(), granularity="module")
    with attached(llama, [tiny_adapter(llama)], how=Linear()) as attachment:
        statistics, _ = stepped(attachment, pruning)
        other = Statistics(attachment, pruning, TRAIN, 2)
        other.state = copy.deepcopy(statistics.state)
        for path in attachment.layers:
            one, two = statistics[path], other[path]
            assert torch.equal(one.input_norm_I, two.input_norm_I)
            assert one.gradient is not None
            assert two.gradient is not None
            assert one.smoothed is not None
            assert two.smoothed is not None
            for mine, theirs in zip(tensors(one.gradient, one.smoothed), tensors(two.gradient, two.smoothed), strict=True):
                assert torch.equal(mine, theirs)


def tensors(gradient: Any, smoothed: Any) -> Sequence[torch.Tensor]:
    return [*gradient, *smoothed.mean, *smoothed.uncertainty]
