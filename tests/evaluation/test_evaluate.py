"""Answers and scores, against the parts they are made of and against numbers made by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.tiny import scripted_backbone, tiny_adapter, tiny_backbone

from pomona.backbone.decoding import Decoding
from pomona.backbone.load import Backbone
from pomona.data import Example
from pomona.data.tasks import Summarization
from pomona.errors import InputError
from pomona.evaluation.evaluate import LOSS, Answers, MeanLoss, answer, example_groups, make_metrics, score
from pomona.metrics import ExactMatch, Rouge1
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
    first, again = (scores(("",) * 20, losses, examples, (), draws=2000) for _ in range(2))
    assert (first[LOSS].low, first[LOSS].high) == (again[LOSS].low, again[LOSS].high)
    # Of a mean of 20 equal steps: the 97.5 % quantile of Student's t, times the standard error with 19 in the denominator.
    error = float(np.std(losses, ddof=1)) / math.sqrt(20)
    assert first[LOSS].high - first[LOSS].low == pytest.approx(2 * stats.t.ppf(0.975, 19) * error, rel=0.1)


def width(documents: int, questions: int, *, together: bool) -> float:
    """Of the interval of the mean loss, where all questions on a document have one loss, 0, 1, 2 or 3."""
    count = documents * questions
    examples = tuple(example(str(place), group=f"g{place // questions}" if together else None) for place in range(count))
    losses = tuple(float(place // questions % 4) for place in range(count))
    found = scores(("",) * count, losses, examples, (), draws=2000)[LOSS]
    assert found.value == 1.5
    return found.high - found.low


def test_examples_of_one_document_are_drawn_together() -> None:
    # Five questions that agree are worth one, so the standard error grows by the root of 5; and Student's t is that of 40 - 1
    # degrees of freedom, not of 200 - 1, as is the denominator of the deviation.
    expected = math.sqrt(5) * stats.t.ppf(0.975, 39) * math.sqrt(40 / 39) / (stats.t.ppf(0.975, 199) * math.sqrt(200 / 199))
    assert width(40, 5, together=True) / width(40, 5, together=False) == pytest.approx(expected, rel=0.1)


def test_four_documents_say_little() -> None:
    """A draw has one document four times in 1 of 256, more often than the interval leaves out: it spans all there is."""
    assert stats.norm.cdf(-math.sqrt(4 / 3) * stats.t.ppf(0.975, 3)) < 1 / 256
    assert width(4, 5, together=True) == 3.0


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


@pytest.mark.parametrize(
    ("chosen", "part"),
    [
        (["rouge_1", "rouge_1"], "metrics: the metric is there twice (got 'rouge_1')"),
        (["rouge_1", {"name": "rouge_1"}], "metrics: the metric is there twice"),
        ([{"language": "en"}], "metrics: a metric needs a name (got {'language': 'en'})"),
        ([5.0], "metrics: a metric needs a name (got 5.0)"),
        ([None], "metrics: a metric needs a name (got None)"),
        ([["rouge_1"]], "metrics: a metric needs a name"),
        ([{"name": 3}], "metrics: a metric needs a name"),
        ([{"name": "rouge_1", "langage": "en"}], "metric 'rouge_1' has no parameter 'langage'. Did you mean 'language'?"),
        ([{"name": "rouge_1", 1: 2}], "metric 'rouge_1' has no parameter 1"),
        ([{"name": "rouge_1", "language": 5}], "language: metric 'rouge_1': input should be a valid string (got 5)"),
        ([{"name": "exact_match", "arabic_article": "never"}], "arabic_article"),
    ],
    ids=str,
)
def test_metrics_that_cannot_be_made(chosen: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        make_metrics(chosen, "en")
    assert part in str(caught.value)


def test_a_metric_s_own_parameters_go_before_the_task_s_language() -> None:
    found = make_metrics(["rouge_1", {"name": "exact_match", "language": "ar", "arabic_article": "anywhere"}], "zh")
    assert found == {"rouge_1": Rouge1(language="zh"), "exact_match": ExactMatch(language="ar", arabic_article="anywhere")}


def test_an_answer_is_missing() -> None:
    with pytest.raises(ValueError, match="longer than argument 1"):
        scores(("a",), (1.0, 2.0), (example("a"), example("b")), ("exact_match",))
