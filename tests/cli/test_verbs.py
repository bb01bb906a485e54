"""The verbs, each through the front door on a tiny model; what `--json` prints is parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.setting import call, comparable, lines, make_setting, recipe, write_recipe

from pomona.adapters import read_adapter
from pomona.backbone.trainable import trainable_merges
from pomona.control import controllers
from pomona.data.tasks import tasks
from pomona.evaluation.baselines import baselines
from pomona.importance import importance_metrics
from pomona.merging import merge_methods
from pomona.metrics import metrics

REGISTRIES = (merge_methods, trainable_merges, importance_metrics, controllers, tasks, metrics, baselines)
QUICK = {"evaluation": {"baselines": ["zero_shot", "concat"], "draws": 200, "batch_size": 3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("verbs"))
    write_recipe(folder / "quick.yaml", recipe(name="quick", **QUICK))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run made by `adapt`, in its default place."""
    done = call(folder, "adapt", "quick.yaml")
    assert done.code == 0, done.err
    return folder / "runs" / "quick"


def told(folder: Path, *arguments: str) -> Any:
    """What the command prints with `--json`."""
    outcome = call(folder, *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_list_names_everything_that_is_registered(folder: Path) -> None:
    found = told(folder, "list")
    assert {kind: list(entries) for kind, entries in found.items()} == {one.kind: list(one) for one in REGISTRIES}
    for registry in REGISTRIES:
        for name, entry in found[registry.kind].items():
            assert entry["description"] == registry.describe(name)
            assert list(entry["parameters"]) == list(registry.parameters(name))
    assert found["controller"]["grasp"]["parameters"]["candidates"] == 3
    assert found["controller"]["fixed"]["parameters"] == {"prune_ratio": None}
    plain = call(folder, "list").out
    assert all(f"\n  {name} " in plain for registry in REGISTRIES for name in registry)


def test_env(folder: Path) -> None:
    import torch

    found = told(folder, "env")
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0] or found["packages"]["torch"] == torch.__version__
    assert found["cache"] == str(folder / "cache")
    assert found["threads"] == 1
    assert call(folder, "env").out.splitlines()[0].startswith("python ")


def test_adapt_writes_to_runs_and_says_so(folder: Path, run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert told(folder, "adapt", "quick.yaml", "--resume") == record
    assert record["status"] == "done"


def test_adapt_set_and_output(folder: Path) -> None:
    changes = ("--set", "tuning.epochs=1", "--set", "controller=fixed", "--set", "controller.prune_ratio=0.5")
    record = told(folder, "adapt", "quick.yaml", "--output", "elsewhere/half", *changes)
    assert record["prune_ratio"] == 0.5
    assert record["recipe"]["tuning"]["epochs"] == 1
    assert comparable(folder / "elsewhere" / "half")["answer"]["controller"] == "fixed"


def test_dry_run_says_what_it_would_work_on_and_writes_nothing(folder: Path) -> None:
    outcome = call(folder, "adapt", "quick.yaml", "--output", "dry", "--dry-run")
    assert outcome.code == 0
    assert outcome.out.splitlines()[:3] == [
        "ok: data: 24 train, 6 micro_dev, 4 dev, 6 test; no split shares a document with another",
        "ok: model: model, 14 linear modules, float32 on cpu",
        "ok: sources: alpha, beta",
    ]
    assert not (folder / "dry").exists()


def test_dry_run_as_json_is_one_object_even_where_something_is_wrong(folder: Path) -> None:
    found = told(folder, "adapt", "quick.yaml", "--output", "dry", "--dry-run")
    assert found["ok"] is True
    assert found["findings"] == [one for one in told(folder, "check", "quick.yaml")["findings"] if one["subject"] == "quick.yaml"]
    outcome = call(folder, "adapt", "quick.yaml", "--dry-run", "--json", "--set", "data.train=none.jsonl")
    assert outcome.code == 2
    found = json.loads(outcome.out)
    assert found["ok"] is False
    assert [one["level"] for one in found["findings"]] == ["error"]
    assert outcome.errors == [f"error: {found['findings'][0]['message']}"]


def test_check_a_recipe_with_its_adapters(folder: Path) -> None:
    found = told(folder, "check", "quick.yaml", "adapters/alpha", "adapters/beta")
    assert found["ok"] is True
    levels = [(one["level"], one["subject"]) for one in found["findings"]]
    assert levels.count(("ok", "quick.yaml")) == 3
    assert ("ok", "adapters/alpha") in levels
    write_recipe(folder / "wrong.yaml", recipe(sources=[{"name": "x", "adapter": "adapters/none"}]))
    outcome = call(folder, "check", "wrong.yaml", "--json")
    assert outcome.code == 2
    (finding,) = json.loads(outcome.out)["findings"]
    assert (finding["level"], finding["subject"]) == ("error", "wrong.yaml")
    assert "adapters/none: no such folder" in finding["message"]


def test_evaluate_a_recipe_gives_the_numbers_of_its_run(folder: Path, run: Path) -> None:
    """The same test split, batches, draws and seed: the record's numbers, digit for digit."""
    record = json.loads((run / "record.json").read_text())
    found = told(folder, "evaluate", "quick.yaml", "--adapter", "runs/quick/adapter")
    assert found["metrics"] == {"zero_shot": record["metrics"]["zero_shot"], "runs/quick/adapter": record["metrics"]["pomona"]}
    assert (found["signatures"], found["model"], found["task"]) == (record["signatures"], record["model"], record["task"])
    assert found["data"] == record["splits"]["test"]["fingerprint"]
    assert found["answers"]["runs/quick/adapter"] == record["systems"]["pomona"]["answers"]


def test_a_run_s_predictions_are_scored_again(folder: Path, run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    found = told(folder, "evaluate", "quick.yaml", "--predictions", "runs/quick/predictions.jsonl")
    for system, scores in record["metrics"].items():
        assert found["metrics"][system] == {name: one for name, one in scores.items() if name != "loss"}


def test_generate_says_what_the_run_predicted(folder: Path, run: Path) -> None:
    prediction = lines(run / "predictions.jsonl")[0]
    prompt = f"{prediction['document']}\n\nSummary:"
    arguments = ("generate", prompt, "--model", "model", "--max-new-tokens", "6", "--line")
    for system, extra in (("zero_shot", ()), ("pomona", ("--adapter", "runs/quick/adapter"))):
        outcome = call(folder, *arguments, *extra)
        assert outcome.code == 0, outcome.err
        first = next((line.strip() for line in outcome.out.splitlines() if line.strip()), "")
        assert first == prediction["predictions"][system]


def test_train_adapter(folder: Path) -> None:
    outcome = call(folder, "train-adapter", "source.yaml", "--set", "tuning.epochs=1")
    assert outcome.code == 0, outcome.err
    first = read_adapter(folder / "adapters" / "gamma").fingerprint()
    outcome = call(folder, "train-adapter", "source.yaml", "--force")
    assert outcome.out == "4 modules, in adapters/gamma\n"
    assert read_adapter(folder / "adapters" / "gamma").fingerprint() != first


def test_merge_and_inspect(folder: Path) -> None:
    merged = told(folder, "merge", "adapters/alpha", "adapters/beta", "-o", "merged", "--method", "concat", "--weights", "1,0.5")
    assert (merged["output"], merged["method"], merged["rank"], merged["weights"]) == ("merged", "concat", 6, [1.0, 0.5])
    assert told(folder, "inspect", "merged")["total"]["modules"] == merged["modules"] == 6
    again = call(folder, "merge", "adapters/alpha", "-o", "merged")
    assert again.code == 2
    assert "already exists" in again.errors[0]


def test_report_writes_the_page_again(folder: Path, run: Path) -> None:
    page = run / "report.html"
    before = page.read_text()
    page.unlink()
    outcome = call(folder, "report", "runs/quick")
    assert (outcome.code, outcome.out) == (0, "runs/quick/report.html\n")
    assert page.read_text() == before


def test_no_verb_shows_the_help(folder: Path) -> None:
    outcome = call(folder)
    assert outcome.code == 0
    assert outcome.out.startswith("Usage: pomona")
    assert outcome.out == call(folder, "--help").out


def test_demo_takes_the_next_free_folder(folder: Path, tmp_path: Path) -> None:
    from unittest import mock

    (tmp_path / "runs" / "demo").mkdir(parents=True)
    with mock.patch("pomona.cli.running.run_and_report") as started:
        for extra in ((), ("--resume",), ("--output", "mine", "--model", "m", "--set", "seed=3")):
            assert call(tmp_path, "demo", *extra).code == 0
    (first, resumed, own) = started.call_args_list
    assert [one.args[1] for one in (first, resumed, own)] == [Path("runs/demo-2"), Path("runs/demo"), Path("mine")]
    assert [one.kwargs["named"] for one in (first, resumed, own)] == [False, False, True]
    assert (own.args[0].model, own.args[0].seed) == ("m", 3)
    assert [one.kwargs["resume"] for one in (first, resumed, own)] == [False, True, False]
