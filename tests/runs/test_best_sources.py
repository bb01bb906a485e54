"""`pool` and `pomona rank-sources`: sources scored on the training examples alone, and a run that merges the best of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.end_to_end.setting import adapter_bytes, call, comparable, inside, lines, make_setting, process, recipe, write_recipe
from tests.tiny import TARGETS, tiny_adapter, tiny_backbone

from pomona.adapters import write_adapter
from pomona.backbone import pool as scores
from pomona.backbone.batches import Encoded
from pomona.data import Example
from pomona.errors import InputError
from pomona.report.page import write_report
from pomona.runs import best_sources
from pomona.runs.adapt import adapt
from pomona.runs.examples import read_splits
from pomona.runs.plan import prepare
from pomona.runs.read_recipe import parse_recipe, read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord

NAMES = ("alpha", "beta", "gamma")
SHORT = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "checkpoint_steps": 1}
FIXED = {"name": "fixed", "prune_ratio": 0.3}


def content(**changes: Any) -> dict[str, Any]:
    sources = [{"name": name, "adapter": f"adapters/{name}", "weight": 1 + place / 2} for place, name in enumerate(NAMES)]
    evaluation = {"draws": 100, "baselines": ["zero_shot", "target_lora", "svd"]}
    return recipe(sources=sources, tuning=SHORT, controller=FIXED, lora={}, evaluation=evaluation) | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("pool"))
    write_adapter(tiny_adapter(tiny_backbone(), seed=3, rank=2, targets=TARGETS["llama"][:1]), folder / "adapters" / "gamma")
    write_recipe(folder / "all.yaml", content())
    write_recipe(folder / "pool.yaml", content(pool={"top": 2}))
    return folder


@pytest.fixture(scope="module")
def ranked(folder: Path) -> dict[str, Any]:
    done = call(folder, "rank-sources", "all.yaml", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def run(folder: Path, name: str, output: str, **options: Any) -> RunRecord:
    with inside(folder):
        return adapt(read_recipe(name, Recipe), output, **options)


@pytest.fixture(scope="module")
def record(folder: Path) -> RunRecord:
    return run(folder, "pool.yaml", "pool")


# The verb ---------------------------------------------------------------------------------------------------------------


def test_candidates_come_best_first_by_loss_or_by_agreement(folder: Path, ranked: dict[str, Any]) -> None:
    by_loss = ranked["candidates"]
    assert sorted(one["name"] for one in by_loss) == sorted(NAMES)
    assert [one["loss"] for one in by_loss] == sorted(one["loss"] for one in by_loss)
    assert all(one["chosen"] for one in by_loss)
    done = call(folder, "rank-sources", "all.yaml", "--by", "gradient", "--top", "1", "--json")
    by_gradient = json.loads(done.out)
    assert by_gradient["by"] == "gradient"
    expected = sorted(by_loss, key=lambda one: -one["agreement"])
    assert by_gradient["candidates"] == [one | {"chosen": place == 0} for place, one in enumerate(expected)]


def test_the_table_shows_the_same_as_json(folder: Path, ranked: dict[str, Any]) -> None:
    done = process(folder, "rank-sources", "pool.yaml")
    assert done.code == 0, done.err
    head, *rows, note = done.out.splitlines()
    assert re.split(r"\s{2,}", head.strip()) == ["source", "loss", "below the bare model", "agreement"]
    for place, (row, one) in enumerate(zip(rows, ranked["candidates"], strict=True)):
        cells = row.split()
        assert (cells[0] == "*") == (place < 2)
        gain = ranked["base_loss"] - one["loss"]
        assert cells[-4:] == [one["name"], f"{one['loss']:.4f}", f"{gain:+.4f}", f"{one['agreement']:+.4f}"]
    assert note.startswith(f"best first by loss; the bare model's loss is {ranked['base_loss']:.4f} nats per token")
    assert note.endswith("; * the best 2")


def test_every_adapter_of_a_folder_is_a_candidate(folder: Path, ranked: dict[str, Any]) -> None:
    write_recipe(folder / "one.yaml", content(sources=[{"name": "x", "adapter": "adapters/alpha"}], merge={"frozen": []}))
    done = call(folder, "rank-sources", "one.yaml", "--adapters", "adapters", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [(one["name"], one["loss"]) for one in found["candidates"]] == [
        (one["name"], one["loss"]) for one in ranked["candidates"]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all.yaml", "--by", "size"), "error: --by: must be loss or gradient (got 'size')"),
        (("all.yaml", "--top", "4"), "error: --top: there are 3 candidates (got 4). Give 1 or more, up to that"),
        (("all.yaml", "--top", "0"), "error: --top: there are 3 candidates (got 0)"),
        (("all.yaml", "--adapters", "model"), "error: --adapters: holds no adapter folders (got 'model')"),
        (("nowhere.yaml",), "error: nowhere.yaml: the recipe cannot be read"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_a_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    with mock.patch.object(best_sources, "pool_losses", side_effect=AssertionError("scored")):
        done = call(folder, "rank-sources", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert len(done.errors) == 1
    assert done.errors[0].startswith(message), done.errors


def test_only_training_examples_are_read(folder: Path) -> None:
    with inside(folder):
        splits = read_splits(read_recipe("all.yaml", Recipe))
    seen: list[Encoded] = []

    def spy(kind: str) -> Any:
        real = getattr(scores, kind)

        def scored(backbone: Any, adapters: Any, examples: list[Encoded], *more: Any, **options: Any) -> list[float]:
            seen.extend(examples)
            return real(backbone, adapters, examples, *more, **options)

        return mock.patch.object(best_sources, kind, scored)

    with spy("pool_losses"), spy("agreements"):
        assert call(folder, "rank-sources", "all.yaml").code == 0
    assert len(seen) == 2 * len(splits.train)
    tokenizer = tiny_backbone().tokenizer
    texts = {str(tokenizer.decode(list(one.tokens), skip_special_tokens=True)) for one in seen}

    def read(example: Example) -> bool:
        return any(example.document in text for text in texts)

    assert all(map(read, splits.train))
    assert not any(map(read, (*splits.dev, *splits.micro_dev, *splits.test)))


# A run ------------------------------------------------------------------------------------------------------------------


def test_a_run_merges_the_best_of_its_sources(folder: Path, ranked: dict[str, Any], record: RunRecord) -> None:
    assert record.pool is not None
    expected = [one | {"chosen": place < 2} for place, one in enumerate(ranked["candidates"])]
    assert [one.model_dump() for one in record.pool.candidates] == expected
    chosen = [one["name"] for one in expected if one["chosen"]]
    assert [source.name for source in record.sources] == [name for name in NAMES if name in chosen], "in the recipe's order"
    assert record.recipe["pool"] == {"top": 2, "by": "loss"}
    alone = content(sources=[one for one in content()["sources"] if one["name"] in chosen])
    write_recipe(folder / "alone.yaml", alone)
    run(folder, "alone.yaml", "alone")
    assert adapter_bytes(folder / "pool") == adapter_bytes(folder / "alone"), "as a recipe that names only these"
    assert lines(folder / "pool" / "predictions.jsonl") == lines(folder / "alone" / "predictions.jsonl")


def test_the_report_shows_the_pool(folder: Path, record: RunRecord) -> None:
    page = write_report(folder / "pool").read_text(encoding="utf-8")
    assert "The pool that the sources were chosen from" in page
    assert "merged the best 2 of 3 adapters by loss" in page
    assert record.pool is not None
    for one in record.pool.candidates:
        assert f"{one.loss:.3f}" in page


def test_a_killed_run_goes_on_with_the_sources_that_it_chose(folder: Path, record: RunRecord) -> None:
    class Killed(BaseException):
        """Nothing catches this."""

    with mock.patch("pomona.runs.adapt.make_systems", side_effect=Killed), pytest.raises(Killed):
        run(folder, "pool.yaml", "killed")
    with mock.patch.object(best_sources, "pool_losses", side_effect=AssertionError("scored again")):
        run(folder, "pool.yaml", "killed", resume=True)

    def untimed(folder: Path) -> dict[str, Any]:
        found = comparable(folder)
        del found["pool"]["seconds"]
        return found

    assert untimed(folder / "killed") == untimed(folder / "pool")


def test_cells_of_one_seed_score_their_sources_once(folder: Path) -> None:
    base = content(pool={"top": 1})
    systems = {"target": {"baseline": "target_lora"}, "pool": {}, "two": {"pool.top": 2}}
    write_recipe(folder / "cells.yaml", {"name": "cells", "recipe": base, "seeds": [0, 1], "systems": systems})
    with mock.patch.object(best_sources, "pool_losses", wraps=best_sources.pool_losses) as scored:
        done = call(folder, "experiment", "cells.yaml", "--output", "cells")
    assert done.code == 0, done.err
    assert scored.call_count == 2
    for cell, count in (("target-0", 1), ("pool-0", 1), ("two-0", 2), ("pool-1", 1)):
        found = json.loads((folder / "cells" / cell / "record.json").read_text())
        assert len(found["sources"]) == count
        assert (found["pool"]["seconds"] == 0.0) == (cell in ("pool-0", "two-0", "pool-1"))


def test_the_plan_counts_the_scores(folder: Path) -> None:
    with inside(folder):
        plan = prepare(read_recipe("pool.yaml", Recipe))
    first = plan.trainings[0]
    tokens = sum(map(len, plan.encoding.data.train))
    assert (first.name, first.steps, first.tokens, first.read_tokens) == ("scores of 3 sources", 0, tokens, 4 * tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"pool": {"top": 4}}, "pool.top: there are 3 sources"), ({"pool": {"top": 0}}, "pool.top"), ({"pool": {"by": "x"}}, "pool")],
    ids=str,
)
def test_a_pool_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_recipe(content(**changes), Recipe)


def test_chosen_sources_that_are_all_frozen_are_refused_by_name() -> None:
    read = parse_recipe(content(pool={"top": 1}, merge={"frozen": ["alpha", "beta"]}), Recipe)
    assert best_sources.with_sources(read, {"beta", "gamma"}).merge.frozen == ("beta",)
    with pytest.raises(InputError, match=r"pool: the chosen sources alpha make no run: .*nothing would be trained"):
        best_sources.with_sources(read, {"alpha"})
