"""The plan: `check`, `--dry-run` and the run find the same errors and say the same warnings, and it counts what runs take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.end_to_end.setting import call, inside, lines, listing, make_setting, recipe, rows, write_recipe, write_rows
from tests.tiny import tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, Factors, write_adapter
from pomona.merging import merge, merge_methods
from pomona.merging.ranks import merged_ranks
from pomona.runs import estimate
from pomona.runs import sources as inputs
from pomona.runs.plan import prepare
from pomona.runs.plan_file import plan_file
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe

SIZES = {"train": 24, "micro_dev": 6, "dev": 4, "test": 6}
FIXED = {"name": "fixed", "prune_ratio": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("plan"))
    write_rows(folder / "wide.jsonl", [*rows(40), {"id": "wide", "document": "fjord", "summary": "qxz" * 30}])
    write_rows(folder / "one.jsonl", [{"id": "one", "document": "fjord", "summary": "qxz" * 30}])
    write_rows(folder / "long.jsonl", [row | {"document": f"{row['document']} {'thorn' * 30}"} for row in rows(40)])
    module = "model.layers.0.self_attn.q_proj"
    write_adapter(Adapter({module: Factors(torch.ones(2, 31), torch.ones(32, 2))}), folder / "adapters" / "misshapen")
    write_adapter(tiny_adapter(tiny_backbone(), seed=5, rank=2), folder / "adapters" / "narrow")
    return folder


def named(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "adapter": f"adapters/{name}"} for name in names]


def short(**changes: Any) -> dict[str, Any]:
    return recipe(**{"tuning": recipe()["tuning"] | {"max_tokens": 40, "epochs": 1}, "splits": SIZES} | changes)


UNEVEN = named("alpha", "narrow")
ON_FACTORS = {"method": "ties", "parameters": {"on": "factors"}}
BAD_RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "a completion that is too long": (short(data={"train": "wide.jsonl"}, splits=SIZES | {"train": 25}), "its completion has"),
    "one of a source's own data": (
        short(sources=[*named("alpha"), {"name": "own", "data": {"train": "one.jsonl"}, "tuning": {"max_tokens": 40}}]),
        "source own: max_tokens: example 'one': its completion has",
    ),
    "a source of another shape": (short(sources=named("alpha", "misshapen")), "misshapen"),
    "a source that is not there": (short(sources=named("alpha", "nowhere")), "no such folder"),
    "a main merge that cannot be made": (short(sources=UNEVEN, merge=ON_FACTORS), "requires factors of equal ranks"),
    "sources that take no part": (short(sources=[{**one, "weight": 0.0} for one in UNEVEN]), "no adapter takes part"),
    "modules that the model does not have": (short(lora={"target_modules": ["nothing"]}, merge={"target": True}), "nothing"),
    "more groups of layers than layers": (short(controller={"name": "layerwise", "groups": 9}), "layers"),
    "no room for an answer": (short(tuning={"max_tokens": 1000}), "the model was made for texts of up to 512 tokens"),
    "too few examples": (short(splits=SIZES | {"train": 400}), "too few examples"),
    "a completion that is too long, and a search with a seed of its own": (
        short(
            search={"seed": 3},
            controller={"name": "grasp", "mode": "two_pass"},
            data={"train": "wide.jsonl"},
            splits=SIZES | {"train": 25},
        ),
        "its completion has",
    ),
}


@pytest.mark.parametrize(("content", "told"), BAD_RUNS.values(), ids=list(BAD_RUNS))
def test_check_dry_run_adapt_and_experiment_refuse_alike_and_write_nothing(
    folder: Path, content: dict[str, Any], told: str
) -> None:
    write_recipe(folder / "bad.yaml", content)
    write_recipe(folder / "cells.yaml", {"recipe": "small.yaml", "seeds": [0], "systems": {"good": {}, "bad": differing(content)}})
    before = listing(folder)
    (message,) = check(folder, "bad.yaml")["error"]
    assert told in message
    for arguments in (("--dry-run",), ()):
        outcome = call(folder, "adapt", "bad.yaml", *arguments)
        assert (outcome.code, outcome.errors) == (2, [f"error: {message}"])
    found = check(folder, "cells.yaml")["error"]
    for arguments in (("--dry-run",), ()):
        outcome = call(folder, "experiment", "cells.yaml", *arguments)
        assert (outcome.code, outcome.errors) == (2, [f"error: {one}" for one in found])
    assert told in found[0]
    assert "bad-0" in found[0]
    cache = {name for name in listing(folder) if name.split("/")[0] == "cache"}
    assert {name: time for name, time in listing(folder).items() if name not in cache} == before


def differing(content: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe is other than that of `small.yaml`."""
    return {key: value for key, value in content.items() if recipe().get(key) != value and key != "name"}


def check(folder: Path, name: str) -> dict[str, list[str]]:
    """What `pomona check` says of a file, by level."""
    outcome = call(folder, "check", name, "--json", "--no-trial")
    found = json.loads(outcome.out)
    assert outcome.code == (0 if found["ok"] else 2)
    return {level: [one["message"] for one in found["findings"] if one["level"] == level] for level in ("ok", "warning", "error")}


BAD_TRAININGS: dict[str, tuple[dict[str, Any], str]] = {
    "a completion that is too long": ({"data": {"train": "one.jsonl"}, "tuning": {"max_tokens": 40}}, "its completion has"),
    "modules that the model does not have": ({"lora": {"target_modules": ["nothing"]}}, "nothing"),
    "too few examples": ({"examples": 100}, "only 12 examples are there"),
    "no such data": ({"data": {"train": "nowhere.jsonl"}}, "no such file"),
}


@pytest.mark.parametrize(("changes", "told"), BAD_TRAININGS.values(), ids=list(BAD_TRAININGS))
def test_check_dry_run_and_train_adapter_refuse_alike_and_write_nothing(folder: Path, changes: dict[str, Any], told: str) -> None:
    write_recipe(folder / "bad-source.yaml", {"name": "bad", "model": "model", "data": {"train": "source.jsonl"}} | changes)
    (message,) = check(folder, "bad-source.yaml")["error"]
    assert told in message
    for arguments in (("--dry-run",), ()):
        outcome = call(folder, "train-adapter", "bad-source.yaml", "--output", "none", *arguments)
        assert (outcome.code, outcome.errors) == (2, [f"error: {message}"])
    assert not (folder / "none").exists()


def test_an_occupied_folder_is_refused_by_dry_runs_too(folder: Path) -> None:
    for verb, name in (("adapt", "small.yaml"), ("train-adapter", "source.yaml")):
        told = [call(folder, verb, name, "--output", "adapters/alpha", *more) for more in ((), ("--dry-run",))]
        assert told[0].code == told[1].code == 2
        assert told[0].errors == told[1].errors
        assert "exists" in told[0].errors[0]


def test_a_training_is_planned_and_says_what_it_cuts(folder: Path) -> None:
    content = {"name": "cut", "model": "model", "data": {"train": "long.jsonl"}, "examples": 6}
    write_recipe(folder / "cut.yaml", content | {"tuning": {"epochs": 2, "batch_size": 4, "max_tokens": 64}})
    (warning,) = check(folder, "cut.yaml")["warning"]
    assert warning.startswith("too long for tuning.max_tokens = 64, and cut: 6 of the 6 prompts of train")
    dry = call(folder, "train-adapter", "cut.yaml", "--output", "cut", "--dry-run")
    assert dry.out.splitlines()[:4] == [
        "ok: data: 6 examples",
        "ok: model: model, 14 linear modules, float32 on cpu",
        "ok: adapter: 4 modules",
        f"warning: {warning}",
    ]
    assert "in all: at most 4 optimizer steps on 768 tokens" in dry.out.splitlines()  # 2 epochs of 6 examples of 64 tokens
    assert not (folder / "cut").exists()
    done = call(folder, "train-adapter", "cut.yaml", "--output", "cut")
    assert [line for line in done.err.splitlines() if line.startswith("warning: ")] == [f"warning: {warning}"]


@pytest.fixture(scope="module")
def doubtful(folder: Path) -> dict[str, Any]:
    """A run with everything that is worth a warning, and nothing that is wrong: its plan as JSON, and its record."""
    content = short(
        name="doubtful",
        sources=[*UNEVEN, {"name": "own", "data": {"train": "long.jsonl"}, "examples": 6, "tuning": {"max_tokens": 64}}],
        data={"train": "long.jsonl", "near_duplicates": "allow"},
        tuning=recipe()["tuning"] | {"epochs": 2, "max_tokens": 64},
        splits=SIZES | {"train": 8},
        merge={"target": True},
        controller={"name": "grasp", "mode": "two_pass", "interval_steps": 1},
        search={"seed": 3, "epochs": 1},
        evaluation={"baselines": ["linear", "target_lora", "merge_finetune"], "draws": 200},
    )
    write_recipe(folder / "doubtful.yaml", content)
    warned = check(folder, "doubtful.yaml")["warning"]
    plan = json.loads(call(folder, "adapt", "doubtful.yaml", "--dry-run", "--json").out)
    assert [one["message"] for one in plan["findings"] if one["level"] == "warning"] == warned
    with mock.patch.object(inputs, "fit", wraps=inputs.fit) as trains:
        done = call(folder, "adapt", "doubtful.yaml")
    assert done.code == 0, done.err
    said = [line.removeprefix("warning: ") for line in done.err.splitlines() if line.startswith("warning: ")]
    record = json.loads((folder / "runs" / "doubtful" / "record.json").read_text())
    return {"warned": warned, "said": said, "plan": plan["plan"], "record": record, "sources": trains.call_count}


def test_what_is_doubtful_is_said_by_check_dry_run_and_run_alike(doubtful: dict[str, Any]) -> None:
    warned = doubtful["warned"]
    assert doubtful["said"][: len(warned)] == warned == doubtful["record"]["warnings"][: len(warned)]
    for told in (
        "too long for tuning.max_tokens = 64, and cut: 6 of the 6 prompts of source own",
        "too long for tuning.max_tokens = 64, and cut: 8 of the 8 prompts of train",
        "the search, of seed 3: too long for tuning.max_tokens = 64, and cut: 8 of the 8 prompts of train",
        "the baseline linear is left out: rank: linear requires factors of equal ranks",
    ):
        assert any(one.startswith(told) for one in warned), told
    assert len(set(warned)) == len(warned)


def test_the_plan_counts_what_the_run_then_did(folder: Path, doubtful: dict[str, Any]) -> None:
    plan, record = doubtful["plan"], doubtful["record"]
    assert set(plan["systems"]) == set(record["systems"])
    planned = {one["name"]: one for one in plan["trainings"]}
    assert doubtful["sources"] == sum(one["name"] == "source own" for one in plan["trainings"]) == 2  # under each pass's seed
    events = lines(folder / "runs" / "doubtful" / "history.jsonl")
    for name in {event["system"] for event in events}:
        steps = sum(event["kind"] == "step" for event in events if event["system"] == name)
        assert (planned[name]["steps"], planned[name]["tokens"]) == (steps, record["tokens"][name]), name
        assert planned[name]["rounds"] == sum(event["kind"] == "round" for event in events if event["system"] == name)
    assert {name for name in planned if not name.startswith("source ")} == {event["system"] for event in events}
    assert plan["steps"] == sum(one["steps"] for one in plan["trainings"])
    tried = sum(len(one["candidates"]) + 1 for one in record["rounds"])
    assert plan["probes"] == tried
    assert plan["seconds"] > 0
    assert plan["least_bytes"] > 4 * sum(one.numel() for one in tiny_backbone().model.parameters())


def test_sources_in_the_cache_are_not_trained_again(folder: Path, doubtful: dict[str, Any]) -> None:
    with inside(folder):
        plan = plan_file("doubtful.yaml")
    sources = [one for one in plan.trainings if one.name.startswith("source ")]
    assert [(one.name, one.steps) for one in sources] == [("source own, in the cache", 0)] * 2


def test_a_grid_is_as_many_runs_as_ratios(folder: Path) -> None:
    write_recipe(folder / "grid.yaml", recipe(controller={"name": "grid", "prune_ratios": [0.1, 0.2, 0.5]}))
    with inside(folder):
        plan = plan_file("grid.yaml")
    main = next(one for one in plan.trainings if one.name == "pomona")
    assert (main.runs, main.steps, main.rounds) == (3, 3 * 18, 0)


def test_a_baseline_s_cell_plans_that_baseline_alone(folder: Path) -> None:
    with inside(folder):
        read = read_recipe("small.yaml", Recipe)
        found = {name: prepare(read, only=name) for name in ("zero_shot", "target_lora")}
    assert {name: [one.name for one in plan.trainings] for name, plan in found.items()} == {
        "zero_shot": [],
        "target_lora": ["target_lora"],
    }
    assert {name: plan.systems for name, plan in found.items()} == {"zero_shot": ["zero_shot"], "target_lora": ["target_lora"]}


def test_a_trial_beyond_memory_is_reported_and_is_not_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(estimate, "fit", lambda *_, **__: full())
    outcome = call(folder, "check", "small.yaml")
    assert outcome.code == 0
    assert "time: not known: the trial step failed: out of memory" in outcome.out.splitlines()


def test_the_plan_does_not_move_a_run(folder: Path) -> None:
    """Stand-ins leave the model as it was."""
    with inside(folder):
        plan = prepare(read_recipe("small.yaml", Recipe), trial=True)
        fresh = prepare(read_recipe("small.yaml", Recipe))
    assert plan.backbone.fingerprint == fresh.backbone.fingerprint
    assert [(one.name, one.steps) for one in plan.trainings] == [(one.name, one.steps) for one in fresh.trainings]


# Ranks of a merge, without the merge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(merge_methods))
@pytest.mark.parametrize("second", [3, 2], ids=["even", "uneven"])
def test_ranks_are_those_of_the_merge_and_so_are_errors(method: str, second: int) -> None:
    backbone = tiny_backbone()
    adapters = [tiny_adapter(backbone, seed=1, rank=3), tiny_adapter(backbone, seed=2, rank=second)]
    ranks = [{module: one[module].rank for module in one} for one in adapters]

    def outcome(make: Callable[[], dict[str, int]]) -> object:
        try:
            return make()
        except Exception as error:
            return type(error), str(error)

    def merged() -> dict[str, int]:
        made = merge(adapters, method, [1.0, 0.5])
        return {module: made[module].rank for module in made}

    assert outcome(lambda: merged_ranks(ranks, method, [1.0, 0.5])) == outcome(merged)
