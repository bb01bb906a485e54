"""Evaluation without a run: what the record holds, and where its numbers come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, Factors, write_adapter
from pomona.backbone.decoding import Decoding
from pomona.backbone.load import Backbone
from pomona.data import Example, fingerprint
from pomona.data.tasks import ExtractiveQA, Summarization
from pomona.errors import InputError
from pomona.evaluation.answers import answer
from pomona.evaluation.scores import make_metrics, score
from pomona.runs.evaluate import evaluate, read_adapters, score_predictions
from pomona.runs.record import EvaluationRecord
from pomona.tuning.progress import Silent

TASK = Summarization(max_new_tokens=6)
WORDS = ("red", "green", "blue", "grey", "brown", "white")
EXAMPLES = [Example(word, f"{word} values\n\nSummary:", f" {word}", (word,), word) for word in WORDS]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.fixture(scope="module")
def adapters(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    for name, seed in (("one", 1), ("two", 2)):
        write_adapter(tiny_adapter(backbone, seed=seed, size=0.4), folder / name)
    return [folder / "one", folder / "two"]


def test_the_record_of_models(backbone: Backbone, adapters: list[Path]) -> None:
    found = evaluate(backbone, adapters, EXAMPLES, TASK, metrics=["chrf", "rouge_1"], draws=200, seed=5, batch_size=4)
    one, two = map(str, adapters)
    assert (found.model, found.task, found.examples, found.cut_documents) == ("tiny-llama", "Summarization", 6, 0)
    assert found.data == fingerprint(EXAMPLES)
    assert list(found.metrics) == ["zero_shot", one, two]
    assert list(found.metrics[one]) == ["chrf", "rouge_1", "loss"]
    assert [(this.system, this.baseline, this.metric) for this in found.comparisons] == [
        (system, baseline, metric)
        for system, baseline in ((one, "zero_shot"), (two, "zero_shot"), (two, one))
        for metric in ("chrf", "rouge_1", "loss")
    ]
    assert all(this.p_holm is not None and this.p_value <= this.p_holm <= 3 * this.p_value for this in found.comparisons)
    assert list(found.signatures) == ["chrf", "rouge_1"]
    assert found.signatures["chrf"].startswith("nrefs:1|")
    assert found.unscored == {"zero_shot": 0, one: 0, two: 0}
    # The same numbers, made of the parts.
    given = answer(backbone, None, EXAMPLES, TASK, batch_size=4, max_tokens=512, progress=Silent(), label="x")
    assert found.predictions["zero_shot"] == list(given.texts)
    scores = score(given, EXAMPLES, make_metrics(["chrf", "rouge_1"], "en"), draws=200, seed=5)
    for name, expected in scores.items():
        this = found.metrics["zero_shot"][name]
        assert (this.value, this.low, this.high, this.n) == (expected.value, expected.low, expected.high, 6)
    looks = found.answers["zero_shot"]
    assert given.unended is not None
    assert (looks.unended_share, looks.cut_prompts) == (given.unended / 6, 0)
    assert EvaluationRecord.model_validate_json(found.model_dump_json()) == found


def test_the_task_s_metrics_are_used_where_none_are_chosen(backbone: Backbone) -> None:
    found = evaluate(backbone, [], EXAMPLES[:2], TASK, draws=100)
    assert list(found.metrics["zero_shot"]) == [*TASK.metrics, "loss"]
    assert found.comparisons == []


def test_prompts_fit_the_model_s_context(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is said of a limit, it is the model's own."""
    long = [Example("long", "x " * 300 + "\n\nSummary:", " x", ("x",), "x")]
    assert backbone.context_tokens == 512
    assert evaluate(backbone, [], long, TASK, draws=100, metrics=["chrf"]).answers["zero_shot"].cut_prompts == 1
    monkeypatch.setattr(Backbone, "context_tokens", 1024)
    assert evaluate(backbone, [], long, TASK, draws=100, metrics=["chrf"]).answers["zero_shot"].cut_prompts == 0


def test_decoding_reaches_the_model(backbone: Backbone) -> None:
    greedy, drawn = (
        evaluate(backbone, [], EXAMPLES[:3], TASK, draws=100, metrics=["chrf"], decoding=decoding)
        for decoding in (None, Decoding(temperature=3.0))
    )
    assert greedy.predictions != drawn.predictions


def test_documents_that_the_task_shortened_are_counted(backbone: Backbone) -> None:
    task = Summarization(max_new_tokens=2, max_document_characters=5)
    examples = [task.example({"document": document, "summary": "x"}, document) for document in ("short", "longer", "longest")]
    assert evaluate(backbone, [], examples, task, draws=100, metrics=["chrf"]).cut_documents == 2


def test_adapters_that_cannot_be_used(
    backbone: Backbone, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        evaluate(backbone, [*adapters, tmp_path / "nowhere"], EXAMPLES, TASK)
    write_adapter(tiny_adapter(backbone), tmp_path / "zero_shot")
    assert list(read_adapters([tmp_path / "zero_shot"])) == [str(tmp_path / "zero_shot")]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"adapter: is what the bare model is called \(got 'zero_shot'\)"):
        read_adapters(["zero_shot"])
    adapter = tiny_adapter(backbone)
    (module, pair), *_ = ((name, adapter[name]) for name in adapter)
    write_adapter(Adapter({f"{module}.elsewhere": Factors(pair.A, pair.B)}, "x"), tmp_path / "misfit")
    with pytest.raises(InputError, match="elsewhere"):
        evaluate(backbone, [tmp_path / "misfit"], EXAMPLES, TASK)


def test_an_unknown_metric_is_found_before_the_model_is_asked(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone.model, "forward", lambda **_: pytest.fail("the model was asked"))
    with pytest.raises(InputError, match="no such metric"):
        evaluate(backbone, [], EXAMPLES, TASK, metrics=["rouge_9"])


# Answers that are already there -----------------------------------------------------------------------------------------

QUESTIONS = [
    Example(word, "p", f" {word}", (word, f"a {word} fox"), word, group=str(place // 2)) for place, word in enumerate(WORDS)
]


def test_the_record_of_given_answers() -> None:
    given: dict[str, list[str | None]] = {
        "first": ["red", "wrong", None, "grey", "", "white"],
        "second": ["red", "green", "blue", "grey", "brown", None],
    }
    found = score_predictions(given, QUESTIONS, ExtractiveQA(), draws=400, seed=1)
    assert (found.model, found.task, found.examples) == (None, "ExtractiveQA", 6)
    # No model, no losses.
    assert list(found.metrics["first"]) == ["token_f1", "exact_match"]
    assert (found.metrics["first"]["exact_match"].value, found.metrics["first"]["exact_match"].n) == (60.0, 5)
    assert (found.metrics["second"]["exact_match"].value, found.metrics["second"]["exact_match"].n) == (100.0, 5)
    difference = next(one for one in found.comparisons if one.metric == "exact_match")
    # Over red, green, grey and brown, which both answered: 100 against 50.
    assert (difference.system, difference.baseline, difference.difference, difference.n) == ("second", "first", 50.0, 4)
    # Three documents; the second one's answers are equal. Exchanging the first and the third, both or none, is as large: 2 of 4.
    assert difference.p_value == 0.5
    assert found.unscored == {"first": 1, "second": 1}
    assert found.answers["first"].empty_share == 0.2
    # How a model came to the answers is not known.
    assert (found.answers["first"].unended_share, found.answers["first"].cut_prompts) == (None, None)
    assert found.predictions == given
    assert json.loads(found.model_dump_json())["answers"]["first"]["unended_share"] is None


def test_the_task_reads_the_answers() -> None:
    found = score_predictions({"mine": ["\n red \nand more"]}, QUESTIONS[:1], ExtractiveQA(), draws=100)
    assert found.predictions == {"mine": ["red"]}
    assert found.metrics["mine"]["exact_match"].value == 100.0


def test_a_system_without_any_answer_has_no_score_and_no_comparison() -> None:
    given: dict[str, Any] = {"first": ["red"] * 6, "none": [None] * 6}
    found = score_predictions(given, QUESTIONS, ExtractiveQA(), draws=100)
    assert found.metrics["none"] == {}
    assert found.unscored["none"] == 6
    assert found.comparisons == []
    assert found.answers["none"].empty_share is None
