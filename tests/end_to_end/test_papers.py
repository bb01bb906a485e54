"""The papers' tables: each file is sound, and its twin, a tiny model on local data in the hub's layout, runs to the table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.end_to_end.setting import call, write_recipe
from tests.real_data import DATA
from tests.tiny import save_tiny_model

from pomona.control import Fixed
from pomona.runs.experiments.recipe import read_experiment
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import FirstPass, Recipe

ROOT = Path(__file__).resolve().parents[2]
PAPERS = {path.stem: path for path in sorted((ROOT / "src/pomona/recipes/papers").glob("*.yaml"))}
PUBLISHED = {"grasp-xlsum": "grasp-lora", "grasp-mlqa": "grasp-lora", "alm-scitldr": "adaptive-lora-merge"}
ROWS = 12


def local(name: str, split: str) -> list[dict[str, Any]]:
    lines = (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def xlsum(rows: Iterable[Mapping[str, Any]], text: str, summary: str) -> list[dict[str, Any]]:
    return [{"id": row["id"], "url": "", "title": "", "summary": row[summary], "text": row[text]} for row in rows]


def scitldr(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An abstract is a list of sentences."""
    return [
        {
            "source": [f"{one.strip()}." for one in row["document"].rstrip(".").split(". ")],
            "paper_id": row["id"],
            "target": row["references"],
        }
        for row in rows
    ]


def mlqa(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Not two questions on one context, which would go to one split."""
    apart = {row["context"]: row for row in rows}.values()
    return [
        {
            "context": row["context"],
            "question": row["question"],
            "answers": {"answer_start": [row["context"].index(one) for one in row["answers"]], "text": row["answers"]},
            "id": row["id"],
        }
        for row in apart
    ]


def wiki_lingua(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"gem_id": row["id"], "source": row["document"], "target": row["summary"], "references": []} for row in rows]


HUB: dict[str, Callable[[], list[dict[str, Any]]]] = {
    **{
        f"allenai/scitldr/Abstract/{there}": lambda here=here: scitldr(local("scitldr/en", here))
        for there, here in (("train", "train"), ("validation", "dev"), ("test", "test"))
    },
    "csebuetnlp/xlsum/english/train": lambda: xlsum(local("scitldr/en", "train"), "document", "summary"),
    **{
        f"csebuetnlp/xlsum/arabic/{there}": lambda here=here: xlsum(local("tydiqa_goldp/ar", here), "context", "question")
        for there, here in (("train", "train"), ("validation", "dev"), ("test", "test"))
    },
    **{
        f"csebuetnlp/xlsum/chinese_simplified/{there}": lambda here=here: xlsum(local("csl_title/zh", here), "document", "summary")
        for there, here in (("train", "train"), ("validation", "dev"), ("test", "test"))
    },
    "GEM/wiki_lingua/en/train": lambda: wiki_lingua(local("scitldr_title/en", "train")),
    "facebook/mlqa/mlqa.en.en/test": lambda: mlqa(local("mlqa/en", "test")),
    "facebook/mlqa/mlqa.ar.ar/validation": lambda: mlqa(local("mlqa/ar", "train")),
    "facebook/mlqa/mlqa.zh.zh/validation": lambda: mlqa(local("mlqa/zh", "train")),
}
"""owner/name/configuration/split -> rows with the columns of the hub."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and the hub's Parquet copies: a folder for each configuration, and in it one for each split."""
    pytest.importorskip("datasets")
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("papers")
    save_tiny_model(folder / "model")
    for place, rows in HUB.items():
        (folder / "hub" / place).mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows()[:ROWS]), folder / "hub" / place / "0000.parquet")
    return folder


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The hub: every data set is a script there, so only its copy can be read. Gives what was read."""
    import datasets

    asked: set[str] = set()
    real: Callable[..., object] = datasets.load_dataset

    def load(address: str, config: str | None = None, *, split: str, data_dir: str = "", revision: str | None = None) -> object:
        name = address.removeprefix("hf://datasets/")
        if revision is None:
            raise RuntimeError(f"Dataset scripts are no longer supported, but found {Path(name).name}.py")
        assert (config, revision) == (None, "refs/convert/parquet")
        asked.add(f"{name}/{data_dir}/{split.partition('[')[0]}")
        return real(str(folder / "hub" / name), data_dir=data_dir, split=split, cache_dir=str(folder / "datasets"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def shrunk_task(task: dict[str, Any]) -> dict[str, Any]:
    return task | {"max_new_tokens": 2, "max_document_characters": 40}


def twin(given: dict[str, Any]) -> dict[str, Any]:
    """The same experiment on a tiny model: values that only set a size are replaced, and all else stays as it is."""
    recipe = dict(given["recipe"])
    recipe |= {"model": "model", "dtype": "float32", "task": shrunk_task(recipe["task"])}
    recipe["splits"] = {"train": 4, "micro_dev": 2, "dev": 2, "test": 2}
    small = {"epochs": 1, "max_tokens": 200}
    recipe["tuning"] = recipe["tuning"] | small
    recipe["sources"] = [
        source | {"examples": 3, "task": shrunk_task(source.get("task", recipe["task"])), "tuning": source["tuning"] | small}
        for source in recipe["sources"]
    ]
    few = {"prune_ratios": [0.3, 0.6]}
    if recipe["controller"]["name"] == "grid":
        recipe["controller"] = recipe["controller"] | few
    else:
        recipe["controller"] = recipe["controller"] | {"interval_steps": 2}
    systems = {
        name: changes | {"controller": changes["controller"] | few}
        if changes.get("controller", {}).get("name") == "grid"
        else changes
        for name, changes in given["systems"].items()
    }
    settings = {
        name: changes | {"task": shrunk_task(changes["task"])} if changes else {}
        for name, changes in given.get("settings", {}).items()
    }
    metrics = [metric for metric in given["metrics"] if isinstance(metric, str)]  # an encoder is another model
    changed = {"recipe": recipe, "systems": systems, "settings": settings, "metrics": metrics, "seeds": [0], "draws": 100}
    return given | changed


def test_every_paper_has_its_kit() -> None:
    assert PAPERS.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_kit_has_the_published_settings_on_the_papers_model(name: str) -> None:
    pytest.importorskip("bert_score")
    experiment, cells = read_experiment(PAPERS[name])
    published = read_recipe(ROOT / "src/pomona/recipes" / f"{PUBLISHED[name]}.yaml", Recipe)
    assert experiment.name == name
    assert experiment.seeds == (0, 1, 2)
    first = {(cell.setting, cell.system): cell.recipe for cell in cells if cell.seed == 0}
    whole = [recipe for (_, system), recipe in first.items() if system == ("grasp" if "grasp" in name else "merge_pruned")]
    for recipe in whole:
        assert (recipe.model, recipe.dtype) == ("meta-llama/Meta-Llama-3-8B-Instruct", "bfloat16")
        for part in ("merge", "lora", "pruning", "controller", "search", "select_by"):
            assert getattr(recipe, part) == getattr(published, part), part
        sized = {"max_tokens": 4000, "gradient_checkpointing": True}
        assert recipe.tuning == type(recipe.tuning)(**{**vars(published.tuning), **sized})
        assert (recipe.splits.train, recipe.splits.micro_dev, recipe.splits.dev) == (50, 16, 50)
    for (_, system), recipe in first.items():
        if system == "merge":
            assert (recipe.controller, recipe.search) == (Fixed(0), FirstPass())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_twin_of_a_kit_runs_from_the_hub_to_the_table(name: str, folder: Path, asked: set[str]) -> None:
    """Every system in the first setting, the last one in the others."""
    given = yaml.safe_load(PAPERS[name].read_text(encoding="utf-8"))
    write_recipe(folder / f"{name}.yaml", twin(given))
    first, *others = given.get("settings", {"default": {}})
    last = list(given["systems"])[-1]
    calls = [("--settings", first), *(("--resume", "--settings", other, "--systems", last) for other in others)]
    for options in calls:
        done = call(folder, "experiment", f"{name}.yaml", "--no-trial", *options)
        assert done.code == 0, done.err
    named = itertools.chain.from_iterable(
        data.values()
        for data in [given["recipe"]["data"]]
        + [source["data"] for source in given["recipe"]["sources"]]
        + [changes["data"] for changes in given.get("settings", {}).values() if changes]
    )
    hub = {str(one)[4:].partition("[")[0].replace(":", "/").replace("@", "/") for one in named if str(one).startswith("hub:")}
    assert asked == hub
    made = {str(path.parent.relative_to(folder / "runs" / name)) for path in (folder / "runs" / name).rglob("record.json")}
    several = f"{first}/" if others else ""
    assert made == {f"{several}{system}-0" for system in given["systems"]} | {f"{other}/{last}-0" for other in others}
    table = (folder / "runs" / name / "table.md").read_text(encoding="utf-8")
    assert all(f"| {system}" in table for system in given["systems"])
