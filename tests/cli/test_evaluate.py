"""`pomona evaluate` through the front door: every way to say what is scored, and what is refused before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.end_to_end.setting import Outcome, call, lines, listing, make_setting, recipe, rows, write_recipe, write_rows
from tests.tiny import save_tiny_model, tiny_adapter, tiny_backbone, tiny_chat_tokenizer

from pomona.adapters import write_adapter

DATA = ("--data", "source.jsonl")
MODEL = ("--model", "model", "--set", "max_new_tokens=4")
QA = ("--data", "questions.jsonl", "--task", "extractive_qa")
ANSWERED = ("--predictions", "answers.jsonl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, questions with the answers of another program, and recipes."""
    folder = make_setting(tmp_path_factory.mktemp("evaluate"))
    questions = [
        {"id": f"q{place}", "context": f"{row['document']}.", "question": "who?", "answers": [row["summary"], "nobody"]}
        for place, row in enumerate(rows(6))
    ]
    write_rows(folder / "questions.jsonl", questions)
    answers = ["nobody", None, questions[2]["answers"][0], "wrong", ""]
    write_rows(folder / "answers.jsonl", [{"id": f"q{place}", "prediction": text} for place, text in enumerate(answers)])
    write_rows(folder / "strangers.jsonl", [{"id": "elsewhere", "prediction": "x"}])
    write_rows(folder / "numbers.jsonl", [{"id": "q0", "prediction": 5}])
    write_recipe(folder / "shown.yaml", recipe(data={"train": "data.jsonl"}, evaluation={"draws": 100, "metrics": ["chrf"]}))
    write_recipe(folder / "broken.yaml", {"data": {"trian": "data.jsonl"}})
    write_adapter(tiny_adapter(tiny_backbone(), seed=1), folder / "nan")
    weights = folder / "nan" / "adapter_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(weights).items()}, weights)
    (folder / "taken.jsonl").write_text("mine\n")
    return folder


def evaluate(folder: Path, *arguments: str) -> Any:
    outcome = call(folder, "evaluate", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


# A model on data of one's own -------------------------------------------------------------------------------------------


def test_adapters_on_data(folder: Path) -> None:
    found = evaluate(folder, *DATA, *MODEL, "-a", "adapters/alpha", "-a", "adapters/beta")
    systems = ["zero_shot", "adapters/alpha", "adapters/beta"]
    assert list(found["metrics"]) == list(found["answers"]) == list(found["unscored"]) == systems
    assert (found["examples"], found["model"], found["task"]) == (12, "model", "Summarization")
    assert all(one["n"] == 12 for scores in found["metrics"].values() for one in scores.values())
    assert list(found["metrics"]["zero_shot"]) == ["rouge_l", "rouge_1", "rouge_2", "bleu", "chrf", "loss"]
    assert len({scores["loss"]["value"] for scores in found["metrics"].values()}) == 3
    assert [(one["system"], one["baseline"]) for one in found["comparisons"]][::6] == [
        ("adapters/alpha", "zero_shot"),
        ("adapters/beta", "zero_shot"),
        ("adapters/beta", "adapters/alpha"),
    ]
    loss = {system: scores["loss"]["value"] for system, scores in found["metrics"].items()}
    pairs = [one for one in found["comparisons"] if one["metric"] == "loss"]
    for one in pairs:
        assert one["difference"] == pytest.approx(loss[one["system"]] - loss[one["baseline"]], abs=1e-6)
    p_values = sorted(one["p_value"] for one in pairs)
    assert min(one["p_holm"] for one in pairs) == pytest.approx(min(1, 3 * p_values[0]))  # Holm over all three pairs
    assert set(found["comparisons"][0]) == {
        "system", "baseline", "metric", "difference", "low", "high", "p_value", "n", "p_holm",
    }  # fmt: skip
    # The answers are long; they go where `--output` says.
    assert "predictions" not in found


def test_the_table_equals_the_record(folder: Path) -> None:
    found = evaluate(folder, *DATA, *MODEL, "-a", "adapters/beta", "--metric", "chrf", "--set", "max_document_characters=9")
    outcome = call(
        folder, "evaluate", *DATA, *MODEL, "-a", "adapters/beta", "--metric", "chrf", "--set", "max_document_characters=9"
    )
    shown = outcome.out.splitlines()
    assert [line for line in shown if not line.startswith(" ")][:2] == ["zero_shot", "adapters/beta"]
    chrf, loss = found["metrics"]["zero_shot"]["chrf"], found["metrics"]["zero_shot"]["loss"]
    assert shown[1].split() == ["chrf", f"{chrf['value']:.3f}", f"[{chrf['low']:.3f},", f"{chrf['high']:.3f}]", "n", "=", "12"]
    assert shown[2].split()[:2] == ["loss", f"{loss['value']:.3f}"]
    looks = found["answers"]["zero_shot"]
    assert shown[3].startswith(f"  answers       {looks['empty_share']:.1%} empty, {looks['unended_share']:.1%} without an end")
    difference = found["comparisons"][0]
    expected = f"adapters/beta - zero_shot  chrf          {difference['difference']:+8.3f}  ["
    (line,) = [line for line in shown if line.startswith(expected)]
    assert line.endswith(f"p = {difference['p_value']:.4f}, {difference['p_holm']:.4f} after Holm")
    assert shown[-1] == f"documents cut at the task's max_document_characters: {found['cut_documents']} of 12"
    assert found["cut_documents"] == 12


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("two.csv", 'abstract,title\n"amber birch, cedar",amber\nember fjord,ember\n'),
        ("two.tsv", "abstract\ttitle\namber birch, cedar\tamber\nember fjord\tember\n"),
        ("two.json", '[{"abstract": "amber birch, cedar", "title": "amber"}, {"abstract": "ember fjord", "title": "ember"}]'),
        ("two.jsonl", '{"abstract": "amber birch, cedar", "title": "amber"}\n{"abstract": "ember fjord", "title": "ember"}\n'),
    ],
)
def test_kinds_of_files_and_columns_of_other_names(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    columns = ("--column", "document=abstract", "--column", "summary=title")
    found = evaluate(folder, "--data", name, *columns, *MODEL, "--metric", "chrf")
    assert found["examples"] == 2
    write_rows(
        folder / "named.jsonl",
        [{"document": "amber birch, cedar", "summary": "amber"}, {"document": "ember fjord", "summary": "ember"}],
    )
    assert evaluate(folder, "--data", "named.jsonl", *MODEL, "--metric", "chrf") == found


def test_squad_s_own_form(folder: Path) -> None:
    answers = [{"text": "amber birch", "answer_start": 0}]
    paragraph = {"context": "amber birch stands.", "qas": [{"id": "1", "question": "what?", "answers": answers}]}
    (folder / "squad.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph]}]}))
    write_rows(folder / "said.jsonl", [{"id": "1", "prediction": "Amber Birch!"}])
    found = evaluate(folder, "--data", "squad.json", "--task", "extractive_qa", "--predictions", "said.jsonl")
    assert found["metrics"]["said"]["exact_match"]["value"] == 100.0


def test_the_task_its_settings_and_its_language(folder: Path) -> None:
    arguments = (*QA, "--model", "model", "--language", "zh", "--set", "max_new_tokens=5")
    found = evaluate(folder, *arguments, "-o", "five.jsonl")
    assert (found["task"], list(found["metrics"]["zero_shot"])) == ("ExtractiveQA", ["token_f1", "exact_match", "loss"])
    assert all("zh" in signature for signature in found["signatures"].values())
    text = lines(folder / "five.jsonl")[0]["predictions"]["zero_shot"]
    assert len(text) > 3
    # A list is taken where the task wants a tuple, as in a recipe.
    evaluate(folder, *arguments, "--set", f"stop={json.dumps([text[2]])}", "-o", "stopped.jsonl")
    stopped = lines(folder / "stopped.jsonl")[0]["predictions"]["zero_shot"]
    assert stopped == text[: text.index(text[2])].strip()


def test_fewer_examples_are_part_of_more(folder: Path) -> None:
    for count in (3, 5):
        evaluate(folder, *DATA, *MODEL, "--metric", "chrf", "--examples", str(count), "-o", f"of-{count}.jsonl")
    three, five = ([row["id"] for row in lines(folder / f"of-{count}.jsonl")] for count in (3, 5))
    assert (len(five), five[:3]) == (5, three)


def test_metrics_with_parameters(folder: Path) -> None:
    chosen = ("--metric", "{name: exact_match, language: ar, arabic_article: anywhere}", "--metric", "chrf")
    found = evaluate(folder, *QA, *ANSWERED, *chosen)
    assert list(found["metrics"]["answers"]) == ["exact_match", "chrf"]
    assert "ar" in found["signatures"]["exact_match"]


def test_decoding_and_the_size_of_batches(folder: Path) -> None:
    greedy = evaluate(folder, *DATA, *MODEL, "--metric", "chrf", "-o", "greedy.jsonl")
    assert (
        evaluate(folder, *DATA, *MODEL, "--metric", "chrf", "--batch-size", "1")["metrics"]["zero_shot"]["chrf"]
        == (greedy["metrics"]["zero_shot"]["chrf"])
    )
    for name, settings in (("drawn", ("temperature=3", "seed=1")), ("beams", ("num_beams=3",))):
        decode = [word for setting in settings for word in ("--decode", setting)]
        evaluate(folder, *DATA, *MODEL, "--metric", "chrf", *decode, "-o", f"{name}.jsonl")
    said = {name: [row["predictions"] for row in lines(folder / f"{name}.jsonl")] for name in ("greedy", "drawn", "beams")}
    assert said["greedy"] != said["drawn"]
    assert said["greedy"] != said["beams"]


def test_a_prompt_too_long_for_the_limit_is_cut_and_counted(folder: Path) -> None:
    found = evaluate(folder, *DATA, *MODEL, "--metric", "chrf", "--max-tokens", "30")
    assert found["answers"]["zero_shot"]["cut_prompts"] == 12
    shown = call(folder, "evaluate", *DATA, *MODEL, "--metric", "chrf", "--max-tokens", "30").out
    assert "  prompts cut   12\n" in shown


def test_the_chat_form(folder: Path) -> None:
    save_tiny_model(folder / "chat", tokenizer=tiny_chat_tokenizer())
    arguments = (*DATA, "--model", "chat", "--metric", "chrf", "--set", "max_new_tokens=4", "--set", "form=chat")
    chat, brief = evaluate(folder, *arguments), evaluate(folder, *arguments, "--set", "system=Be brief.")
    base = evaluate(folder, *arguments[:-2])
    assert len({one["metrics"]["zero_shot"]["loss"]["value"] for one in (chat, brief, base)}) == 3


# A recipe ---------------------------------------------------------------------------------------------------------------


def test_a_recipe_says_everything_and_options_go_before_it(folder: Path) -> None:
    found = evaluate(folder, "shown.yaml")
    assert (found["examples"], list(found["metrics"]["zero_shot"])) == (6, ["chrf", "loss"])
    assert found["model"] == "model"
    changed = evaluate(folder, "shown.yaml", "--metric", "rouge_l", "--max-tokens", "20", "-a", "adapters/alpha")
    assert list(changed["metrics"]["adapters/alpha"]) == ["rouge_l", "loss"]
    assert changed["answers"]["zero_shot"]["cut_prompts"] == 6


# Answers that are already there -----------------------------------------------------------------------------------------


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pomona.backbone.load.load_backbone", lambda *_: pytest.fail("a model was loaded"))


def test_given_answers_are_scored_without_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_model(monkeypatch)
    found = evaluate(folder, *QA, *ANSWERED)
    # Of six, one has null and one is not there; two of the others are right.
    assert (found["model"], found["unscored"], found["examples"]) == (None, {"answers": 2}, 6)
    match = found["metrics"]["answers"]["exact_match"]
    assert (match["value"], match["n"]) == (50.0, 4)
    assert "loss" not in found["metrics"]["answers"]
    shown = call(folder, "evaluate", *QA, *ANSWERED).out
    assert "  unscored      2\n" in shown
    assert "25.0% empty" in shown
    assert "without an end" not in shown


def test_answers_that_were_written_score_the_same_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(folder, *DATA, *MODEL, "-a", "adapters/alpha", "-o", "written.jsonl")
    assert set(lines(folder / "written.jsonl")[0]) == {"id", "prompt", "document", "references", "predictions"}
    no_model(monkeypatch)
    again = evaluate(folder, *DATA, "--predictions", "written.jsonl")
    assert again["data"] == first["data"]
    for system, scores in again["metrics"].items():
        assert scores == {name: one for name, one in first["metrics"][system].items() if name != "loss"}
    assert [one for one in first["comparisons"] if one["metric"] != "loss"] == again["comparisons"]


def test_a_system_without_answers_is_shown_with_its_known_figures(folder: Path) -> None:
    write_rows(folder / "none.jsonl", [{"id": "q0", "predictions": {"one": "nobody", "none": None}}])
    outcome = call(folder, "evaluate", *QA, "--predictions", "none.jsonl")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-2:] == ["none", "  unscored      6"]


# What is refused --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "neither recipe nor data": ((), "give either a recipe or --data"),
    "both": (("shown.yaml", *DATA), "give either a recipe or --data"),
    "no such recipe": (("nowhere.yaml",), "nowhere.yaml: the recipe cannot be read"),
    "a broken recipe": (("broken.yaml",), "broken.yaml: data.trian: unknown key"),
    "a recipe and a task": (("shown.yaml", "--task", "summarization"), "--task: has no effect: the recipe says this itself"),
    "a recipe and columns": (("shown.yaml", "--column", "document=x"), "--column: has no effect"),
    "a recipe and settings": (("shown.yaml", "--set", "max_new_tokens=2"), "--set: has no effect"),
    "a recipe and a language": (("shown.yaml", "--language", "zh"), "--language: has no effect"),
    "a recipe and a number": (("shown.yaml", "--examples", "2"), "--examples: has no effect"),
    "a recipe and a model": (("shown.yaml", "--model", "model"), "--model: has no effect"),
    "no such data": (("--data", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
    "data of an unknown kind": (("--data", "shown.yaml"), "shown.yaml: unknown file format (got '.yaml')"),
    "data of another task": ((*DATA, "--task", "extractive_qa"), "source.jsonl:1: context: is missing"),
    "no such column": ((*DATA, "--column", "document=abstract"), "source.jsonl:1: document: there is no such column"),
    "a column without a field": ((*DATA, "--column", "abstract"), "--column: is not FIELD=COLUMN (got 'abstract')"),
    "no such task": ((*DATA, "--task", "sumarization"), "no such task (got 'sumarization'). Did you mean 'summarization'?"),
    "no such setting of the task": ((*DATA, "--set", "max_tokens=3"), "task 'summarization' has no parameter 'max_tokens'"),
    "a setting of a wrong type": ((*DATA, "--set", "max_new_tokens=many"), "max_new_tokens: task 'summarization'"),
    "a setting that does not fit": ((*DATA, "--set", "max_new_tokens=0"), "max_new_tokens: a whole number of at least 1"),
    "a text for a list of texts": ((*DATA, "--set", "stop=x"), "stop: task 'summarization': input should be a valid tuple"),
    "a form that is none": ((*DATA, "--set", "form=chatty"), "form: task 'summarization': input should be 'base' or 'chat'"),
    "no language": ((*DATA, "--language", "English"), "language: not a language tag (got 'English')"),
    "too many examples": ((*DATA, "--examples", "13"), "examples: only 12 examples are there (got 13)"),
    "no examples": ((*DATA, "--examples", "0"), "--examples"),
    "no such metric": ((*DATA, "--metric", "blue"), "no such metric (got 'blue'). Did you mean 'bleu'?"),
    "a metric twice": ((*DATA, "--metric", "bleu", "--metric", "bleu"), "metrics: the metric is there twice (got 'bleu')"),
    "a number for a metric": ((*DATA, "--metric", "5"), "metrics: a metric needs a name (got 5)"),
    "no metric": ((*DATA, "--metric", ""), "metrics: a metric needs a name (got None)"),
    "no such parameter of a metric": ((*DATA, "--metric", "{name: bleu, x: 1}"), "metric 'bleu' has no parameter 'x'"),
    "a parameter of a wrong type": ((*DATA, "--metric", "{name: bleu, language: 5}"), "language: metric 'bleu'"),
    "a metric that is not YAML": ((*DATA, "--metric", "{name: bleu"), "--metric: cannot be read"),
    "no such way to decode": ((*DATA, "--decode", "beams=2"), "--decode: no such setting (got 'beams')"),
    "a decoding that does not fit": ((*DATA, "--decode", "top_p=2"), "top_p: a number above 0 and at most 1 is expected (got 2)"),
    "no room for a prompt": (
        (*DATA, "--max-tokens", "64"), "max_tokens: an answer of 64 tokens leaves no room for a prompt (got 64)",
    ),
    "an output that exists": ((*DATA, "-o", "taken.jsonl"), "taken.jsonl: already exists. Choose another file."),
    "an output nowhere": ((*DATA, "-o", "nowhere/out.jsonl"), "nowhere: no such folder"),
    "no such adapter": ((*DATA, "-a", "adapters/none"), "adapters/none: no such folder"),
    "an adapter that is not finite": ((*DATA, "-a", "nan"), "NaN"),
    "predictions and an adapter": ((*QA, *ANSWERED, "-a", "adapters/alpha"), "--adapter: has no effect: --predictions runs no"),
    "predictions and a model": ((*QA, *ANSWERED, "--model", "model"), "--model: has no effect: --predictions runs no model"),
    "predictions and decoding": ((*QA, *ANSWERED, "--decode", "num_beams=2"), "--decode: has no effect"),
    "predictions and a limit": ((*QA, *ANSWERED, "--max-tokens", "99"), "--max-tokens: has no effect"),
    "no such predictions": ((*QA, "--predictions", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
    "predictions of other examples": ((*QA, "--predictions", "strangers.jsonl"), "strangers.jsonl: has no answer to any"),
    "predictions that are no text": ((*QA, "--predictions", "numbers.jsonl"), "numbers.jsonl:1: prediction: a text or null"),
    "predictions without ids": ((*QA, "--predictions", "two.jsonl"), "two.jsonl:1: id: the id of the example is expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_said_before_a_model_is_loaded_and_leaves_nothing(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model(monkeypatch)
    write_rows(folder / "two.jsonl", [{"prediction": "x"}])
    arguments, part = REFUSED[name]
    before = listing(folder)
    outcome = call(folder, "evaluate", *arguments, *(() if "-o" in arguments else ("-o", "new.jsonl")))
    refused_well(outcome, part)
    assert listing(folder) == before


def refused_well(outcome: Outcome, part: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.errors
    assert part in line
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--model", "nowhere/at/all"), "model: no such model folder (got 'nowhere/at/all')"),
        (("--model", "model", "--dtype", "float8"), "dtype: unknown dtype (got 'float8')"),
        (("--model", "model", "--device", "toaster"), "device: no such device here (got 'toaster')"),
        (("--model", "model", "--set", "form=chat"), "form: the model has no chat template"),
    ],
)
def test_what_only_the_model_can_tell(folder: Path, arguments: tuple[str, ...], part: str) -> None:
    refused_well(call(folder, "evaluate", *DATA, *arguments, "-o", "new.jsonl"), part)
    assert not (folder / "new.jsonl").exists()
