"""Coefficients as what is trained: the factors stay, and the result is one standard adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import peft
import pytest
import torch
from tests.tiny import tiny_model
from tests.tuning.runs import RANKS, TUNING, events, train, two_adapters

from pomona.adapters import layer_number, write_adapter
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Coefficients, Concat
from pomona.backbone.trainable.coefficients import Unit
from pomona.tuning.settings import Event

TARGET = (0.0, 1.0)
TOKENS = torch.arange(3, 20)[None]


def alone(coefficients: Coefficients) -> Concat:
    return Concat(frozen=frozenset({0, 1}), coefficients=coefficients)


@pytest.mark.parametrize("unit", get_args(Unit))
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_reads_the_given_factors_under_the_trained_weights(llama: Backbone, tmp_path: Path, unit: Unit) -> None:
    """The exported adapter in PEFT, against a model whose own weights got the sources' updates times the recorded weights."""
    sources = two_adapters(llama)
    fitted = train(llama, how=alone(Coefficients(unit, TARGET)), weights_learning_rate=0.1)
    network, plain = tiny_model("llama"), tiny_model("llama")
    with torch.no_grad():
        base = network(input_ids=TOKENS).logits
    for path in fitted.adapter:
        weights = fitted.component_weights.get(path) or [
            [weight] * rank for weight, rank in zip(fitted.merge_weights[path], RANKS, strict=True)
        ]
        for source, each in zip(sources, weights, strict=True):
            pair = source[path]
            plain.get_submodule(path).weight.data += pair.scaling * (pair.B * torch.tensor(each)) @ pair.A  # pyright: ignore
    write_adapter(fitted.adapter, tmp_path / "adapter")
    read = peft.PeftModel.from_pretrained(network, tmp_path / "adapter").eval()
    with torch.no_grad():
        found, expected = read(input_ids=TOKENS).logits, plain(input_ids=TOKENS).logits
    effect = (expected - base).abs().max()
    assert effect > 0.01
    torch.testing.assert_close(found, expected, atol=float(1e-4 * effect), rtol=0)


@pytest.mark.parametrize(("unit", "count"), [("adapter", 2), ("layer", 2 * 2), ("module", 2 * 4), ("component", 4 * sum(RANKS))])
def test_one_weight_for_each_adapter_and_unit(llama: Backbone, unit: Unit, count: int) -> None:
    fitted = train(llama, how=alone(Coefficients(unit, TARGET)), weights_learning_rate=0.1)
    assert fitted.coefficients == count
    own = {"adapter": lambda path: 0, "layer": layer_number}.get(unit, lambda path: path)
    groups: dict[object, set[tuple[float, ...]]] = {}
    for path, weights in fitted.merge_weights.items():
        assert all(weight != start for weight, start in zip(weights, TARGET, strict=True))
        groups.setdefault(own(path), set()).add(tuple(weights))
    assert all(len(found) == 1 for found in groups.values())
    assert len(set.union(*groups.values())) == len(groups)
    for path, each in fitted.component_weights.items():
        assert [len(one) for one in each] == list(RANKS)
        assert [sum(one) / len(one) for one in each] == pytest.approx(list(fitted.merge_weights[path]), abs=1e-6)
        assert len(set(each[1])) == RANKS[1]
    assert bool(fitted.component_weights) is (unit == "component")


def test_a_shared_coefficient_multiplies_given_weights_that_differ(llama: Backbone) -> None:
    still = dataclasses.replace(TUNING, epochs=1)
    fitted = train(llama, tuning=still, weights=[0.5, [2.0, -3.0]], how=alone(Coefficients("adapter")), weights_learning_rate=0.02)
    for path, (first, second) in fitted.merge_weights.items():
        assert abs(first - 0.5) > 1e-3
        multiplied = second / (-3.0 if layer_number(path) else 2.0)
        assert multiplied != 1.0
        assert multiplied == pytest.approx(1.0, abs=0.1)
    assert len({second for _, second in fitted.merge_weights.values()}) == 2
    assert len({first for first, _ in fitted.merge_weights.values()}) == 1


def test_negative_weights_start_where_they_are_given(llama: Backbone) -> None:
    how = alone(Coefficients())
    with attached(llama, two_adapters(llama), [0.8, -0.4], how=how) as attachment:
        for weights in attachment.merge_weights().values():
            assert weights == pytest.approx([0.8, -0.4], rel=1e-6)


def test_coefficients_have_no_decay_and_their_own_rate_is_told(llama: Backbone) -> None:
    """The first step of AdamW is as long as the rate; a decay would be added to it."""
    tuning = dataclasses.replace(TUNING, epochs=1, weight_decay=0.5, gradient_clip=None, batch_size=7)
    fitted = train(llama, tuning=tuning, weights=[2.0, 3.0], how=alone(Coefficients()), weights_learning_rate=0.02)
    assert [event["learning_rate"] for event in events(fitted, "step")] == [0.02]
    for first, second in fitted.merge_weights.values():
        assert [abs(first - 2.0), abs(second - 3.0)] == pytest.approx([0.02, 0.02], rel=1e-3)


def test_only_the_coefficients_have_gradients_and_the_loss_falls(llama: Backbone) -> None:
    names: set[str] = set()

    def look(event: Event, attachment: Attachment) -> None:
        assert attachment.parameters() == {}
        names.update(name for name, one in llama.model.named_parameters() if one.requires_grad)

    tuning = dataclasses.replace(TUNING, batch_size=7, epochs=8, dropout=0.0)
    fitted = train(llama, tuning=tuning, how=alone(Coefficients()), weights_learning_rate=0.2, look=look)
    losses = [event["loss"] for event in events(fitted, "step")]
    assert losses[-1] < losses[0] - 0.01
    assert {name.rpartition(".")[2] for name in names} == {"weights"}
    assert fitted.dev_loss == min(event["dev_loss"] for event in events(fitted, "epoch"))


def test_closed_gates_are_zero_and_open_ones_exactly_the_given_weight(llama: Backbone) -> None:
    how = alone(Coefficients("component", binary=True))
    fitted = train(llama, weights=[0.5, 0.25], how=how, weights_learning_rate=0.15)
    found = [value for each in fitted.component_weights.values() for value in each[0]]
    assert set(found) == {0.0, 0.5}
    assert {value for each in fitted.component_weights.values() for value in each[1]} <= {0.0, 0.25}
    for path, each in fitted.component_weights.items():
        opened = sum(value != 0 for one in each for value in one)
        assert (fitted.adapter[path].rank if path in fitted.adapter else 0) == opened  # closed components are left out
