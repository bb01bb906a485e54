"""Looking at a recipe before anything is trained: a metric that cannot be had is found, wherever the recipe names it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.setting import call, inside, make_setting, recipe, rows, write_recipe, write_rows

from pomona.adapters import Finding
from pomona.errors import InputError, MissingPackageError
from pomona.metrics import Chrf
from pomona.runs.plan_file import plan_file


def check_recipe(path: str) -> list[Finding]:
    """As `pomona check` finds them."""
    try:
        return plan_file(path).findings(path)
    except InputError as error:
        return [Finding("error", path, str(error))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make_setting(tmp_path_factory.mktemp("check"))
    with inside(folder):
        yield folder


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": {"loss": 0.5, "chrf": 0.5}},
        {"select_by": "chrf"},
        {"evaluation": {"metrics": ["bleu", "chrf"]}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_metric_that_cannot_be_had(folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(folder / "it.yaml", recipe(**changes))
    assert "error" not in {finding.level for finding in check_recipe("it.yaml")}

    def missing(self: Chrf, predictions: object, references: object) -> None:
        raise MissingPackageError("no such package", field="chrf")

    monkeypatch.setattr(Chrf, "table", missing)
    (found,) = check_recipe("it.yaml")
    assert (found.level, found.message) == ("error", "chrf: no such package")


def test_a_reward_that_is_not_a_metric(folder: Path) -> None:
    write_recipe(folder / "it.yaml", recipe(reward="rouge_L"))
    (found,) = check_recipe("it.yaml")
    assert found.level == "error"
    assert found.message.startswith("it.yaml: reward: no such metric (got 'rouge_L'). Did you mean 'rouge_l'?")


# What is cut is said, and what a run would refuse is refused ---------------------------------------------------------------

CUT = re.compile(r"too long for tuning.max_tokens = 64, and cut: (\d+) of the (\d+) prompts of (.*), by (\d+) tokens in all")


@pytest.fixture(scope="module")
def long(folder: Path) -> dict[str, Any]:
    """A recipe of which most documents are too long, and a source of its own that is, too."""
    write_rows(folder / "long.jsonl", [row | {"document": f"{row['document']} {'thorn' * 30}"} for row in rows(40)])
    write_rows(folder / "chat.jsonl", [{"id": "1", "document": "amber thorn " * 40, "summary": "amber"}])
    source = {"name": "own", "data": {"train": "chat.jsonl"}, "tuning": {"max_tokens": 64, "batch_size": 1}}
    tuning = recipe()["tuning"] | {"max_tokens": 64, "epochs": 1}
    content = recipe(name="long", data={"train": "long.jsonl", "near_duplicates": "allow"}, tuning=tuning)
    content["sources"] = [*content["sources"], source]
    content["evaluation"] = {"baselines": ["zero_shot"], "draws": 200}
    write_recipe(folder / "long.yaml", content)
    return content


def test_a_check_a_dry_run_and_the_run_say_what_is_cut(folder: Path, long: dict[str, Any]) -> None:
    found = [one.message for one in check_recipe("long.yaml") if one.level == "warning"]
    cut = {match[3]: tuple(map(int, match.group(1, 2, 4))) for one in found if (match := CUT.fullmatch(one))}
    assert list(cut) == ["source own", "train", "micro_dev", "dev", "test"]
    assert cut["train"][:2] == (24, 24)
    answered = (
        "too long for tuning.max_tokens = 64 with task.max_new_tokens = 6, and cut: 6 of the 6 prompts of test, when answered"
    )
    assert [one.startswith(answered) for one in found].count(True) == 1
    dry = call(folder, "adapt", "long.yaml", "--dry-run")
    assert [line.removeprefix("warning: ") for line in dry.out.splitlines() if line.startswith("warning: ")] == found
    run = call(folder, "adapt", "long.yaml")
    assert run.code == 0, run.err
    said = [line.removeprefix("warning: ") for line in run.err.splitlines() if line.startswith("warning: ")]
    assert said[: len(found)] == found
    record = json.loads((folder / "runs" / "long" / "record.json").read_text())
    assert said == record["warnings"]  # the rest is known only once the run is over
    assert record["cut"]["train"]["tokens"] == cut["train"][2]


def test_an_experiment_says_it_once(folder: Path, long: dict[str, Any]) -> None:
    write_recipe(
        folder / "both.yaml",
        {"name": "both", "recipe": long, "systems": {"a": {}, "b": {"merge": {"method": "linear"}}}, "seeds": [0]},
    )
    dry = call(folder, "experiment", "both.yaml", "--dry-run")
    assert dry.code == 0, dry.err
    assert len(CUT.findall(dry.err + dry.out)) == 5


def test_a_completion_without_room_is_refused_before_the_run(folder: Path, long: dict[str, Any]) -> None:
    write_rows(folder / "wide.jsonl", [*rows(40), {"id": "wide", "document": "fjord", "summary": "qxz" * 30}])
    tuning = long["tuning"] | {"max_tokens": 40}
    write_recipe(
        folder / "wide.yaml",
        recipe(data={"train": "wide.jsonl"}, splits={"train": 25, "micro_dev": 6, "dev": 4, "test": 6}, tuning=tuning),
    )
    (found,) = check_recipe("wide.yaml")
    assert (found.level, "its completion has" in found.message) == ("error", True)
    for arguments in (("--dry-run",), ()):
        outcome = call(folder, "adapt", "wide.yaml", *arguments)
        assert (outcome.code, outcome.errors) == (2, [f"error: {found.message}"])


def test_train_adapter_says_what_is_cut(folder: Path, long: dict[str, Any]) -> None:
    content = {"name": "own", "model": "model", "data": {"train": "chat.jsonl", "incomplete_rows": "skip"}}
    write_rows(
        folder / "chat.jsonl", [{"id": "1", "document": "amber thorn " * 40, "summary": "amber"}, {"id": "2", "document": "a"}]
    )
    write_recipe(folder / "own.yaml", content | {"tuning": {"max_tokens": 64, "batch_size": 1, "epochs": 1}})
    outcome = call(folder, "train-adapter", "own.yaml")
    assert outcome.code == 0, outcome.err
    said = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    assert [line.partition(":")[2].split(",")[0].strip() for line in said] == [
        "left out of chat.jsonl",
        "too long for tuning.max_tokens = 64",
    ]


def test_evaluate_says_what_is_cut(folder: Path, long: dict[str, Any]) -> None:
    asked = ("evaluate", "--data", "long.jsonl", "--examples", "3", "--model", "model", "--set", "max_new_tokens=6")
    outcome = call(folder, *asked, "--max-tokens", "64", "--json")
    assert outcome.code == 0, outcome.err
    warnings = json.loads(outcome.out)["warnings"]
    assert [line.removeprefix("warning: ") for line in outcome.err.splitlines() if line.startswith("warning: ")] == warnings
    assert warnings[0].startswith(
        "too long for max_tokens = 64 with max_new_tokens = 6, and cut: 3 of the 3 prompts of the data, when"
    )
    assert call(folder, *asked, "--json").err.count("warning: ") == 0


def test_references_of_another_script_are_reported(folder: Path) -> None:
    russian = [row | {"summary": f"лето {row['summary'][:2]}"} for row in rows(40)]
    write_rows(folder / "ru.jsonl", russian)
    write_recipe(folder / "ru.yaml", recipe(data={"train": "ru.jsonl"}))
    said = "67% of the letters of the references are of a script that rouge_l, rouge_1, rouge_2, bleu cannot read with the rule"
    assert [one.message[: len(said)] for one in check_recipe("ru.yaml") if one.level == "warning"][-1:] == [said]
    write_rows(folder / "said.jsonl", [{"id": row["id"], "prediction": "зима"} for row in russian])
    scored = call(folder, "evaluate", "--data", "ru.jsonl", "--predictions", "said.jsonl", "--json")
    assert scored.code == 0, scored.err
    assert [line.split(" of the letters of ")[0] for line in scored.err.splitlines()] == ["warning: 67%", "warning: 100%"]
    assert len(json.loads(scored.out)["warnings"]) == 2
    other = call(folder, "evaluate", "--data", "ru.jsonl", "--predictions", "said.jsonl", "--json", "--language", "ru")
    assert (other.code, other.err) == (0, "")
