"""Every speed-up against the plain path: the same losses, gradients and answers, by itself and together with all others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import ARCHITECTURES, TARGETS, save_tiny_model, texts_of, tiny_adapter, tiny_backbone, tiny_examples
from torch import Tensor

from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded
from pomona.backbone.candidates import candidate_losses
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone, load_backbone
from pomona.backbone.loss import example_losses, make_batch, token_losses
from pomona.backbone.speed import FrozenProducts, NeededRows, Packing, Speed, SpeedUp, speed_ups, switched_on
from pomona.backbone.speed import frozen_products as products

EXAMPLES = tiny_examples(7, seed=3, shortest=6, longest=20)
PROMPTS = ["Return the sum", "Raise", "a b c d e f g h i j k l m n o p", "Compute the mean of the given tensor", "x"] * 2
NAMES = list(speed_ups)
Answers = list[tuple[str, tuple[int, ...]]]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def fast(request: pytest.FixtureRequest) -> Backbone:
    return tiny_backbone(request.param)


def measured(backbone: Backbone, examples: list[Encoded] = EXAMPLES) -> tuple[list[Tensor], Answers]:
    """Losses of examples, gradients of a batch, losses of candidates; and answers."""
    adapter = tiny_adapter(backbone, targets=TARGETS[backbone.name.removeprefix("tiny-")], size=0.3)
    with attached(backbone, [adapter]) as attachment:
        parameters = attachment.parameters()
        batch = make_batch(backbone, examples[:4])
        with backbone.speed.training_pass(backbone.model):
            loss = token_losses(backbone, batch).flatten()[batch.targets].mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        candidates = [{name: value.detach() * scale for name, value in parameters.items()} for scale in (1.0, 0.5, -1.0)]
        of_candidates = candidate_losses(attachment, examples[:3], candidates, max_tokens=200)
        losses = [torch.tensor(example_losses(backbone, examples, 3)), torch.tensor(of_candidates), loss.detach()]
        with attachment.folded():
            found = generate(backbone, PROMPTS, max_new_tokens=8, batch_size=10, stop=tuple("lEK/D"))
            answers = [(text, answer.tokens) for text, answer in zip(texts_of(found), found, strict=True) if answer is not None]
    return [*losses, *gradients], answers


@pytest.fixture(scope="module")
def plain(fast: Backbone) -> tuple[list[Tensor], Answers]:
    """The reference, on a model of its own: `prepare` changes a model for good."""
    return measured(replace(tiny_backbone(fast.name.removeprefix("tiny-")), speed=Speed()))


def assert_same(found: tuple[list[Tensor], Answers], expected: tuple[list[Tensor], Answers]) -> None:
    assert found[1] == expected[1]
    assert len({len(tokens) for _, tokens in found[1]}) > 1  # they end at different steps
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_each_gives_what_the_plain_path_gives(
    fast: Backbone, plain: tuple[list[Tensor], Answers], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = speed_ups.create(name)
    if isinstance(one, FrozenProducts) and not products._onednn_works():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    assert one.suits(fast.model)
    backbone = tiny_backbone(fast.name.removeprefix("tiny-")) if one.changes_model else fast
    one.prepare(backbone.model)
    assert_same(measured(replace(backbone, speed=Speed((one,)))), plain)


def test_all_together_and_all_but_one_give_it_too(fast: Backbone, plain: tuple[list[Tensor], Answers]) -> None:
    assert len(fast.speed.used) >= len(NAMES) - 1  # the products are the processor's to decide
    assert_same(measured(fast), plain)
    for one in fast.speed.used if fast.name == "tiny-llama" else ():
        without = fast.speed.without(type(one))
        assert type(one) not in without
        assert len(without.used) == len(fast.speed.used) - 1
        assert_same(measured(replace(fast, speed=without)), plain)


def test_what_is_in_use_is_decided_when_the_model_is_loaded(tmp_path: Path) -> None:
    folder = str(save_tiny_model(tmp_path / "model"))
    found = load_backbone(folder, device="cpu")
    assert Packing in found.speed
    assert NeededRows in found.speed
    plain = load_backbone(folder, device="cpu", speed="off")
    assert plain.speed == Speed() == switched_on(plain.model, "off")
    assert not any(isinstance(module, products.FrozenLinear) for module in plain.model.modules())
    assert make_batch(found, EXAMPLES).lengths is not None
    assert make_batch(plain, EXAMPLES).lengths is None


def test_what_changes_the_model_comes_before_what_is_tried_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if not products._onednn_works():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    order: list[type[SpeedUp]] = []
    for name in NAMES:
        cls, suits = speed_ups[name], speed_ups[name].suits
        monkeypatch.setattr(cls, "suits", lambda self, model, suits=suits: order.append(type(self)) or suits(self, model))
    tiny_backbone()
    assert order[0] is FrozenProducts
    assert len(order) == len(NAMES)
