"""Answers and scores, against the parts they are made of and against numbers made by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import tiny_adapter, tiny_backbone

from pomona.backbone.load import Backbone
from pomona.data import Example
from pomona.data.tasks import Summarization
from pomona.errors import InputError
from pomona.evaluation.evaluate import LOSS, Answers, MeanLoss, answer, example_groups, make_metrics, score
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


# Scores -----------------------------------------------------------------------------------------------------------------


def scores(
    texts: tuple[str, ...], losses: tuple[float, ...], examples: tuple[Example, ...], names: tuple[str, ...], draws: int = 400
):
    return score(Answers(texts, losses, 0.0), examples, make_metrics(names, "en"), draws=draws, seed=3)


def test_scores_by_hand() -> None:
    examples = (example("a", "red fox"), example("b", "one two three four"), example("c", "x", references=("x", "two words")))
    found = scores(("red fox", "one two", "two words"), (1.0, 2.0, 6.0), examples, ("exact_match", "rouge_1"))
    assert list(found) == ["exact_match", "rouge_1", LOSS]
    assert found["exact_match"].value == pytest.approx(200 / 3, abs=1e-9)
    # Precision 1 and recall 1/2 give F1 2/3; the best reference counts.
    assert found["rouge_1"].value == pytest.approx(100 * (1 + 2 / 3 + 1) / 3, abs=1e-9)
    assert found[LOSS].value == pytest.approx(3.0, abs=1e-12)
    assert found[LOSS].statistics.tolist() == [[1.0], [2.0], [6.0]]
    for one in found.values():
        assert one.low <= one.value <= one.high


def test_an_interval_of_equal_examples_is_a_point() -> None:
    examples = tuple(example(name, "red fox") for name in "abcd")
    found = scores(("red fox",) * 4, (2.0,) * 4, examples, ("exact_match",))
    assert (found["exact_match"].low, found["exact_match"].high) == (100.0, 100.0)
    assert (found[LOSS].low, found[LOSS].high) == (2.0, 2.0)


def test_the_seed_fixes_the_interval() -> None:
    examples = tuple(example(str(number)) for number in range(20))
    losses = tuple(float(number) for number in range(20))
    first, again = (scores(("",) * 20, losses, examples, ()) for _ in range(2))
    assert (first[LOSS].low, first[LOSS].high) == (again[LOSS].low, again[LOSS].high)
    # The percentile interval of a mean of 20 equal steps: about 1.96 standard errors to each side.
    error = float(np.std(losses)) / math.sqrt(20)
    assert first[LOSS].high - first[LOSS].low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_examples_of_one_document_are_drawn_together() -> None:
    losses = tuple(float(number // 5) for number in range(20))  # four documents of five questions each
    alone = tuple(example(str(number)) for number in range(20))
    together = tuple(example(str(number), group=f"g{number // 5}") for number in range(20))
    narrow, wide = (scores(("",) * 20, losses, examples, (), draws=2000)[LOSS] for examples in (alone, together))
    assert narrow.value == wide.value == 1.5
    # Five questions that agree are worth one: the standard error grows by the square root of 5.
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(math.sqrt(5), rel=0.2)


def test_groups() -> None:
    assert example_groups((example("a"), example("b"))) is None
    assert example_groups((example("a", group="g"), example("b", group="h"))) is None
    assert example_groups((example("a", group="g"), example("b"), example("c", group="g"))) == ["g", "b", "g"]


def test_the_loss_is_not_made_from_texts() -> None:
    with pytest.raises(TypeError, match="measured by the model"):
        MeanLoss().statistics("a", ["a"])
    assert MeanLoss().aggregate(np.array([[6.0], [3.0]]), np.array([3.0, 2.0])).tolist() == [2.0, 1.5]


def test_metrics_speak_the_task_s_language() -> None:
    chinese = make_metrics(("rouge_1",), "zh")["rouge_1"]
    assert (
        chinese.statistics("红狐", ["红狐"]).tolist() == make_metrics(("rouge_1",), "en")["rouge_1"].statistics("a", ["a"]).tolist()
    )
    with pytest.raises(InputError, match="no such metric"):
        make_metrics(("rouge_9",), "en")


def test_an_answer_is_missing() -> None:
    with pytest.raises(ValueError, match="longer than argument 1"):
        scores(("a",), (1.0, 2.0), (example("a"), example("b")), ("exact_match",))
