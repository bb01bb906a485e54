"""Answers and losses, against the parts that they are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.tiny import scripted_backbone, tiny_adapter, tiny_backbone

from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import encode
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import Generated, generate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.trainable import AdaptedModule
from pomona.data import Example
from pomona.data.tasks import Summarization
from pomona.errors import InputError
from pomona.evaluation.answers import Answers, answer
from pomona.tuning.progress import Silent

TASK = Summarization(max_new_tokens=6)


def example(name: str, target: str = "sum of rows", group: str | None = None, references: tuple[str, ...] = ()) -> Example:
    return Example(name, f"{name} values\n\nSummary:", f" {target}", references or (target,), name, group)


EXAMPLES = (example("list of"), example("a longer tensor of many", "mean"), example("x", "raise an error if missing"))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


def ask(backbone: Backbone, adapter: Any = None, batch_size: int = 2, **changes: Any) -> Answers:
    settings: dict[str, Any] = {"max_tokens": 512, "progress": Silent(), "label": "x"} | changes
    return answer(backbone, adapter, EXAMPLES, TASK, batch_size=batch_size, **settings)


def test_the_losses_are_the_mean_negative_log_likelihood_of_the_target(backbone: Backbone) -> None:
    found = ask(backbone)
    tokenizer = backbone.tokenizer
    for one, loss in zip(EXAMPLES, found.losses, strict=True):
        prompt: Any = tokenizer(one.prompt)["input_ids"]
        target: Any = [*tokenizer(one.target, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = backbone.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0].double()
        steps = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
        expected = -sum(float(row[token]) for row, token in zip(steps, target, strict=True)) / len(target)
        assert loss == pytest.approx(expected, abs=1e-5)


def test_the_texts_are_the_greedy_continuations(backbone: Backbone) -> None:
    found = ask(backbone)
    for one, text in zip(EXAMPLES, found.texts, strict=True):
        tokens: Any = backbone.tokenizer(one.prompt)["input_ids"]
        start = len(tokens)
        for _ in range(TASK.max_new_tokens):
            with torch.no_grad():
                tokens = [*tokens, int(backbone.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())]
            if tokens[-1] == backbone.tokenizer.eos_token_id:
                break
        assert text == TASK.parse(str(backbone.tokenizer.decode(tokens[start:], skip_special_tokens=True)))
    assert len(set(found.texts)) > 1


def test_batches_change_nothing(backbone: Backbone) -> None:
    one, three = ask(backbone, batch_size=1), ask(backbone, batch_size=3)
    assert one.texts == three.texts
    assert one.losses == pytest.approx(three.losses, abs=1e-5)


def test_an_adapter_answers_and_leaves_the_model_as_it_was(backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    modules = {name: type(module) for name, module in backbone.model.named_modules()}
    bare = ask(backbone)
    adapted = ask(backbone, tiny_adapter(backbone, seed=4, size=0.5))
    assert adapted.losses != bare.losses
    assert adapted.texts != bare.texts
    after = backbone.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name: type(module) for name, module in backbone.model.named_modules()} == modules
    assert ask(backbone).losses == bare.losses


def test_the_model_is_put_back_when_something_fails(backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}

    class Stops(Silent):
        def advance(self, done: int, note: str = "") -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(backbone, tiny_adapter(backbone, seed=4), progress=Stops())
    after = backbone.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_progress_counts_every_example_once(backbone: Backbone) -> None:
    told: list[object] = []

    class Counts(Silent):
        def begin(self, stage: str, total: int) -> None:
            told.append((stage, total))

        def advance(self, done: int, note: str = "") -> None:
            told.append(done)

    ask(backbone, progress=Counts(), label="Zero shot", batch_size=2)
    assert told == [("evaluating Zero shot", 3), 2, 1]


def test_what_was_cut_and_what_did_not_end_is_counted(backbone: Backbone) -> None:
    assert (ask(backbone).cut_prompts, ask(backbone).unended) == (0, 3)
    longest = max(len(backbone.tokenizer(one.prompt)["input_ids"]) for one in EXAMPLES)  # pyright: ignore[reportArgumentType]
    assert ask(backbone, max_tokens=longest + 6).cut_prompts == 0
    assert ask(backbone, max_tokens=longest + 5).cut_prompts == 1
    scripted = scripted_backbone({":": "k", "k": "\n", "l": "l"})
    mixed = (Example("a", "x:", " k", ("k",), "x"), Example("b", "xl", " k", ("k",), "x"))
    found = answer(scripted, None, mixed, TASK, batch_size=2, max_tokens=99, progress=Silent(), label="x")
    assert (found.texts, found.unended) == (("k", "llllll"), 1)


def test_decoding_reaches_the_model(backbone: Backbone) -> None:
    greedy, beams, drawn = (ask(backbone, decoding=one) for one in (Decoding(), Decoding(num_beams=4), Decoding(temperature=3.0)))
    assert ask(backbone).texts == greedy.texts
    assert len({greedy.texts, beams.texts, drawn.texts}) == 3
    # How an answer is decoded does not change what the model thinks of the target.
    assert greedy.losses == beams.losses == drawn.losses


def test_the_task_s_stop_texts_end_answers() -> None:
    scripted = scripted_backbone({":": "k", "k": "l", "l": "m", "m": "k"})
    task = Summarization(max_new_tokens=6, stop=("mk",))
    (one,) = EXAMPLES[2:]
    found = answer(scripted, None, [one], task, batch_size=1, max_tokens=99, progress=Silent(), label="x")
    assert (found.texts, found.unended) == (("kl",), 0)


def test_what_cannot_be_encoded_is_found_before_anything_is_generated(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone.model, "forward", lambda **_: pytest.fail("the model was asked"))
    long = (*EXAMPLES, example("y", "row " * 40))
    arguments: dict[str, Any] = {"batch_size": 2, "progress": Silent(), "label": "x"}
    with pytest.raises(InputError, match=r"max_tokens: example 'y': its completion has \d+ tokens"):
        answer(backbone, None, long, TASK, max_tokens=60, **arguments)
    with pytest.raises(InputError, match=r"max_tokens: an answer of 6 tokens leaves no room for a prompt \(got 6\)"):
        answer(backbone, None, EXAMPLES, TASK, max_tokens=6, **arguments)
    with pytest.raises(InputError, match="the model has no chat template"):
        answer(backbone, None, [dataclasses.replace(EXAMPLES[0], history=())], TASK, max_tokens=60, **arguments)


def test_in_bfloat16_the_losses_and_texts_are_those_of_the_model_that_was_trained() -> None:
    """A small update, of which folding into bfloat16 would lose a part."""
    backbone = tiny_backbone()
    torch.nn.Module.to(backbone.model, torch.bfloat16)
    adapter = tiny_adapter(backbone, size=0.03)
    encoded, _ = encode(EXAMPLES, backbone.tokenizer, 512)
    found, bare = ask(backbone, adapter), ask(backbone)
    with attached(backbone, [adapter]) as attachment:
        expected = example_losses(backbone, encoded, 8)
        said = [TASK.parse(one.text) for one in texts_within(attachment)]
        lost = torch.cat([rounding(layer).flatten() for layer in attachment.modules.values()])
    update = torch.cat([adapter.delta(path).flatten() for path in adapter])
    assert lost.norm() > 0.1 * update.norm()
    assert found.losses == pytest.approx(expected, rel=1e-6)
    assert found.losses != pytest.approx(bare.losses, rel=1e-4)
    assert list(found.texts) == said


def texts_within(attachment: Attachment) -> list[Generated]:
    prompts = [one.prompt for one in EXAMPLES]
    found = generate(attachment.backbone, prompts, max_new_tokens=TASK.max_new_tokens, batch_size=2)
    return [one for one in found if one is not None]


def rounding(layer: AdaptedModule) -> torch.Tensor:
    """What is lost of an update by folding it."""
    weight: Any = layer.base.weight
    delta = layer.export().delta()
    return (weight + delta.to(weight.dtype)).float() - (weight.float() + delta)
