"""An experiment from the front door to its table, on a tiny model: whole, killed and resumed, with a cell that fails, extended."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import sacrebleu
from scipy import stats
from tests.end_to_end.setting import (
    Outcome,
    adapter_bytes,
    call,
    comparable,
    inside,
    lines,
    listing,
    make_setting,
    recipe,
    rows,
    write_recipe,
    write_rows,
)

from pomona.adapters import read_adapter
from pomona.evaluation.answers import answer
from pomona.metrics.bootstrap import quantile_levels, resamples
from pomona.pruning import pruned_count
from pomona.runs import shared_work as shared
from pomona.runs.adapt import adapt, execute
from pomona.runs.experiments import run as module
from pomona.runs.experiments.recipe import read_experiment
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.recipe import Recipe
from pomona.runs.store import RunStore
from pomona.seeding import stream
from pomona.tuning.fit import fit

SYSTEMS: dict[str, Any] = {"target_lora": {"baseline": "target_lora"}, "p50": {"controller": {"name": "fixed", "prune_ratio": 0.5}}}
CELLS = ["target_lora-0", "p50-0", "target_lora-1", "p50-1"]


class Killed(BaseException):
    """Nothing catches this."""


def content(**changes: Any) -> dict[str, Any]:
    base = recipe(tuning={"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1})
    fixed = {"name": "small", "recipe": base, "seeds": [0, 1], "systems": SYSTEMS, "against": "target_lora", "metrics": ["chrf"]}
    return fixed | {"draws": 150} | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("experiment"))
    write_recipe(folder / "exp.yaml", content())
    return folder


@pytest.fixture(scope="module")
def still() -> Iterator[None]:
    """No time passes, so that two runs of one experiment have the same table to the byte."""
    with mock.patch("time.perf_counter", return_value=0.0):
        yield


@pytest.fixture(scope="module")
def outcome(folder: Path, still: None) -> Outcome:
    with mock.patch.object(shared, "load_backbone", wraps=shared.load_backbone) as loads:
        done = call(folder, "experiment", "exp.yaml")
    assert loads.call_count == 1
    return done


@pytest.fixture(scope="module")
def whole(folder: Path, outcome: Outcome) -> Path:
    assert outcome.code == 0, outcome.err
    return folder / "runs" / "small"


@pytest.fixture(scope="module")
def record(whole: Path) -> ExperimentRecord:
    return ExperimentRecord.model_validate_json((whole / "experiment.json").read_text())


def system_of(cell: str) -> str:
    return "pomona" if cell.startswith("p50") else "target_lora"


def test_the_folder_holds_a_run_for_each_cell_and_the_table(whole: Path, outcome: Outcome) -> None:
    assert {path.name for path in whole.iterdir()} == {
        *(*CELLS, "experiment.yaml", "experiment.json", "table.md", "scores.csv", "systems.csv", "report.html")
    }
    for cell in CELLS:
        assert {path.name for path in (whole / cell).iterdir()} == {
            "recipe.yaml", "record.json", "history.jsonl", "predictions.jsonl", "adapter"
        }  # fmt: skip
    assert outcome.out == f"{(whole / 'table.md').read_text()}\ntable    runs/small/table.md\nreport   runs/small/report.html\n"
    assert not outcome.errors


def test_a_baseline_s_cell_is_that_baseline_alone(whole: Path) -> None:
    for cell in ("target_lora-0", "target_lora-1"):
        found = json.loads((whole / cell / "record.json").read_text())
        assert list(found["systems"]) == list(found["metrics"]) == list(found["tokens"]) == ["target_lora"]
        assert found["prune_ratio"] is found["sparsity"] is found["answer"] is None
        assert found["modules"] == found["comparisons"] == []
        assert found["fingerprints"]["adapter"] == read_adapter(whole / cell / "adapter").fingerprint()
        assert {event["system"] for event in lines(whole / cell / "history.jsonl")} == {"target_lora"}
    main = json.loads((whole / "p50-0" / "record.json").read_text())
    assert list(main["systems"]) == ["pomona"]
    adapter = read_adapter(whole / "p50-0" / "adapter")
    A = adapter["model.layers.0.self_attn.q_proj"].A
    assert main["prune_ratio"] == 0.5
    assert int((A == 0).sum()) == pruned_count(0.5, A.numel())


def test_a_cell_s_recipe_says_all_that_shapes_it(whole: Path) -> None:
    texts = {cell: (whole / cell / "recipe.yaml").read_text() for cell in CELLS}
    assert texts["p50-0"].startswith("name: small/p50-0\nseed: 0\n")
    assert texts["target_lora-0"].startswith("# Of all systems only target_lora is made.\nname: small/target_lora-0\n")
    apart = "# The test split is drawn by seed 0, the others by the recipe's.\n"
    assert texts["p50-1"].startswith(f"{apart}name: small/p50-1\nseed: 1\n")
    assert texts["target_lora-1"].startswith(f"# Of all systems only target_lora is made.\n{apart}name: ")


def test_every_cell_answers_the_same_examples_and_trains_on_its_own(whole: Path) -> None:
    splits = {cell: json.loads((whole / cell / "record.json").read_text())["splits"] for cell in CELLS}
    assert len({one["test"]["fingerprint"] for one in splits.values()}) == 1
    for name in ("train", "dev", "micro_dev"):
        assert splits["p50-0"][name] == splits["target_lora-0"][name] != splits["p50-1"][name] == splits["target_lora-1"][name]
    answered = [[(line["id"], line["references"]) for line in lines(whole / cell / "predictions.jsonl")] for cell in CELLS]
    assert answered[0] == answered[1] == answered[2] == answered[3]


def test_a_cell_is_the_run_that_its_recipe_makes_alone(folder: Path, whole: Path) -> None:
    """What cells share changes none of them, whatever ran before."""
    with inside(folder):
        cells = {cell.path: cell for cell in read_experiment("exp.yaml")[1]}
        adapt(cells["p50-0"].recipe, "alone")
        adapt(cells["target_lora-1"].recipe, "alone-baseline", only="target_lora", shared=shared.SharedWork(0))
    for cell, alone in (("p50-0", "alone"), ("target_lora-1", "alone-baseline")):
        assert adapter_bytes(folder / alone) == adapter_bytes(whole / cell)
        assert comparable(folder / alone) == comparable(whole / cell)
        for name in ("history.jsonl", "predictions.jsonl", "recipe.yaml"):
            assert (folder / alone / name).read_bytes() == (whole / cell / name).read_bytes(), name


def test_the_target_lora_is_trained_once_for_all_cells_that_merge_or_measure_it(folder: Path) -> None:
    base = recipe(tuning={"epochs": 1, "batch_size": 4, "learning_rate": 0.01}, merge={"method": "concat", "target": True})
    write_recipe(folder / "target.yaml", content(name="target", recipe=base))
    ticks = itertools.count(0.0)
    with (
        mock.patch("pomona.runs.system_trainer.fit", wraps=fit) as fits,
        mock.patch("time.perf_counter", side_effect=lambda: next(ticks)),
    ):
        done = call(folder, "experiment", "target.yaml")
    assert done.code == 0, done.err
    assert [one.kwargs["system"] for one in fits.call_args_list] == ["target_lora", "pomona"] * 2  # of two seeds
    _, cells = read_experiment(folder / "target.yaml")
    with inside(folder), mock.patch("pomona.runs.system_trainer.fit", wraps=fit) as fits:
        adapt(cells[1].recipe, "alone-target", shared=shared.SharedWork(0))
    assert fits.call_count == 2
    alone, cell = folder / "alone-target", folder / "runs" / "target" / cells[1].path
    assert comparable(alone) == comparable(cell)
    # The cell before it trained that LoRA: no part of this one's own time, but of what its system costs.
    seconds, before = (json.loads((one / "record.json").read_text())["timing"] for one in (cell, cell.with_name(cells[0].path)))
    assert seconds["reused_seconds"] == before["train_seconds"] > 0
    assert before["reused_seconds"] == 0
    assert seconds["train_seconds"] + seconds["probe_seconds"] < seconds["total_seconds"]
    found = ExperimentRecord.model_validate_json((folder / "runs" / "target" / "experiment.json").read_text())
    assert found.cells[1].train_seconds == pytest.approx(sum(seconds[f"{part}_seconds"] for part in ("train", "probe", "reused")))
    assert adapter_bytes(alone) == adapter_bytes(cell)
    for name in ("history.jsonl", "predictions.jsonl"):
        assert (alone / name).read_bytes() == (cell / name).read_bytes(), name


def test_a_ratio_is_learned_once_for_runs_of_several_seeds_where_the_search_has_its_own(folder: Path) -> None:
    """On examples, sources and a target LoRA of that seed, which no test example is among; a run alone learns the same."""
    base = recipe(
        data={"train": "data.jsonl", "near_duplicates": "allow"},
        splits={"train": 14, "micro_dev": 6, "dev": 4, "test": 12},
        tuning={"epochs": 1, "batch_size": 2, "learning_rate": 0.01},
        merge={"method": "linear", "target": True},
        controller={"name": "grasp", "mode": "two_pass", "interval_steps": 2},
        search={"metric": "magnitude", "seed": 42},
        sources=[{"name": "gamma", "data": {"train": "source.jsonl"}, "tuning": {"epochs": 1, "batch_size": 4}}],
    )
    systems = {"learned": {}, "half": {"controller": {"name": "fixed", "prune_ratio": 0.5}, "search": {}}}
    write_recipe(folder / "once.yaml", content(name="once", recipe=base, systems=systems, against="half"))
    with mock.patch("pomona.runs.system_trainer.fit", wraps=fit) as fits:
        done = call(folder, "experiment", "once.yaml")
    assert done.code == 0, done.err
    trained = [one.kwargs["system"] for one in fits.call_args_list]
    assert trained == ["search_target_lora", "pomona_search"] + ["target_lora", "pomona", "pomona"] * 2
    _, cells = read_experiment(folder / "once.yaml")
    records = [json.loads((folder / "runs" / "once" / cell.path / "record.json").read_text()) for cell in cells]
    first, _, second, _ = records
    assert first["answer"] == second["answer"]
    assert first["rounds"] == second["rounds"] != []
    assert first["search_splits"] == second["search_splits"] != first["splits"]
    assert first["splits"]["train"] != second["splits"]["train"]
    assert records[1]["search_splits"] == {}
    both = shared.SharedWork(test_seed=0)
    with inside(folder):
        searched = both.splits(cells[2].recipe.first_pass or cells[2].recipe)
        tests = {example.document for example in both.splits(cells[2].recipe).test}
        alone = adapt(cells[0].recipe, "alone-once")
    seen = {example.document for part in (searched.train, searched.micro_dev, searched.dev) for example in part}
    assert not tests & seen
    assert alone.answer is not None
    assert alone.model_dump(mode="json")["answer"] == first["answer"]


def test_a_fresh_lora_is_another_where_anything_that_shapes_it_is_other(folder: Path) -> None:
    both = shared.SharedWork()
    base = recipe()
    other = [{"seed": 7}, {"lora": {"rank": 3}}, {"tuning": {"epochs": 9}}, {"dtype": "bfloat16"}, {"select_by": "chrf"}]
    other += [{"splits": base["splits"] | {"dev": 3}}, {"data": base["data"] | {"near_duplicates": "allow"}}]
    other += [{"task": {"name": "summarization", "max_new_tokens": 3}}, {"model": "elsewhere"}]
    other += [{"evaluation": {"batch_size": 3}}, {"evaluation": {"decoding": {"repetition_penalty": 1.5}}}]
    same = [{"controller": {"name": "fixed", "prune_ratio": 0.3}}, {"merge": {"method": "linear"}}, {"name": "another"}]
    same += [{"evaluation": {"baselines": []}}]
    with inside(folder):
        one = both.fresh_loras(Recipe.model_validate(base))
        assert all(both.fresh_loras(Recipe.model_validate(base | change)) is not one for change in other)
        assert all(both.fresh_loras(Recipe.model_validate(base | change)) is one for change in same)


def test_predictions_have_each_example_s_loss(whole: Path) -> None:
    for cell in CELLS:
        of_lines = [line["losses"][system_of(cell)] for line in lines(whole / cell / "predictions.jsonl")]
        recorded = json.loads((whole / cell / "record.json").read_text())["metrics"][system_of(cell)]["loss"]["value"]
        assert statistics.fmean(of_lines) == pytest.approx(recorded, abs=1e-12)


def widened(table_KN: np.ndarray, low: float, high: float) -> tuple[float, float, float]:
    """The ends of a mean over two runs for new runs, and Student's p-value, from a two-way table and ADR 46's formulas."""
    K, N = table_KN.shape
    runs, examples, grand = table_KN.mean(axis=1), table_KN.mean(axis=0), table_KN.mean()
    of_runs = N * ((runs - grand) ** 2).sum() / (K - 1)
    of_examples = K * ((examples - grand) ** 2).sum() / (N - 1)
    of_both = ((table_KN - runs[:, None] - examples + grand) ** 2).sum() / ((K - 1) * (N - 1))
    seeds, common = of_runs / N / K, max(0.0, (of_examples - of_both) / (K * N))
    share = seeds / (seeds + common / 2)  # of two runs not squared
    degrees = 1 / (share / (K - 1) + (common / (common + seeds)) ** 2 / (N - 1))
    error = (common + seeds) ** 0.5
    reach = float(stats.t.ppf(0.975, degrees)) * error
    return min(low, grand - reach), max(high, grand + reach), float(2 * stats.t.sf(abs(grand) / error, degrees))


def test_the_figures_are_those_of_the_cells_files(whole: Path, record: ExperimentRecord) -> None:
    """Means, deviations, intervals and differences, from `predictions.jsonl` alone."""
    (setting,) = record.settings.values()
    texts: dict[str, list[list[str]]] = {"target_lora": [], "p50": []}
    found: dict[str, list[list[float]]] = {"target_lora": [], "p50": []}
    gold: list[str] = []
    for cell in CELLS:
        parsed = lines(whole / cell / "predictions.jsonl")
        gold = [line["references"][0] for line in parsed]
        texts[cell.rpartition("-")[0]].append([line["predictions"][system_of(cell)] for line in parsed])
        found[cell.rpartition("-")[0]].append([line["losses"][system_of(cell)] for line in parsed])
    count = len(gold)
    low_level, high_level = quantile_levels(np.ones(count), 0.95)
    weights = np.concatenate(list(resamples(count, 150, stream(0, "bootstrap"))))
    for system, of_seeds in texts.items():
        scores = [sacrebleu.corpus_chrf(one, [gold]).score for one in of_seeds]
        told = setting.metrics["chrf"][system]
        assert told.values == pytest.approx(scores, abs=1e-9)
        assert told.mean == pytest.approx(sum(scores) / 2, abs=1e-9)
        assert told.deviation == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5, abs=1e-9)
        both = np.array(found[system]).mean(axis=0)
        draws = [sum(times * loss for times, loss in zip(draw, both, strict=True)) / count for draw in weights]
        loss = setting.metrics["loss"][system]
        ends = [float(end) for end in np.quantile(draws, [low_level, high_level])]
        low, high, _ = widened(np.array(found[system]), *ends)
        assert low < ends[0] < ends[1] < high  # two runs that differ say less of new runs than of themselves
        assert (loss.low, loss.high) == pytest.approx((low, high), abs=1e-9)
        assert loss.holds_for == "new_seeds"
        recorded = [json.loads((whole / f"{system}-{seed}" / "record.json").read_text()) for seed in (0, 1)]
        values = [one["metrics"][system_of(system)]["chrf"]["value"] for one in recorded]
        assert told.values == pytest.approx(values, abs=1e-12)
    contrast = setting.metrics["loss"]["p50"].contrast
    assert contrast is not None
    paired = np.array(found["p50"]) - np.array(found["target_lora"])
    both = paired.mean(axis=0)
    weights = np.concatenate(list(resamples(count, 150, stream(0, "compare"))))
    ends = [float(end) for end in np.quantile(weights @ both / count, [low_level, high_level])]
    low, high, p_value = widened(paired, *ends)
    exchanged = [abs(np.dot(signs, both)) for signs in itertools.product((-1.0, 1.0), repeat=count)]
    exact = np.mean([one >= abs(both.sum()) - 1e-12 for one in exchanged])  # fewer exchanges than draws: each once
    assert contrast.difference == pytest.approx(float(paired.mean()), abs=1e-12)
    assert (contrast.low, contrast.high) == pytest.approx((low, high), abs=1e-9)
    assert contrast.p_value == pytest.approx(max(float(exact), p_value), abs=1e-9)
    assert (contrast.seeds, contrast.examples, contrast.p_holm) == (2, 6, contrast.p_value)
    assert [cell.status for cell in record.cells] == ["done"] * 4
    assert [cell.path for cell in record.cells] == CELLS
    assert setting.costs["p50"].prune_ratio == 0.5
    assert setting.costs["p50"].sparsity == pytest.approx(0.5, abs=0.01)


def test_killed_between_and_within_cells_it_ends_with_the_same_table(folder: Path, whole: Path, still: None) -> None:
    def killed_before(last: str) -> Any:
        def run(plan: Any, store: RunStore, progress: Any) -> Any:
            if store.folder.name == last:
                raise Killed
            return execute(plan, store, progress)

        return mock.patch.object(module, "execute", run)

    with killed_before("target_lora-1"), pytest.raises(Killed):
        call(folder, "experiment", "exp.yaml", "--output", "hurt")
    assert {path.name for path in (folder / "hurt").iterdir()} == {"experiment.yaml", "target_lora-0", "p50-0"}
    before = listing(folder / "hurt")
    with mock.patch.object(RunStore, "save_answers", side_effect=Killed), pytest.raises(Killed):
        call(folder, "experiment", "exp.yaml", "--output", "hurt", "--resume")
    assert json.loads((folder / "hurt" / "target_lora-1" / "record.json").read_text())["status"] == "failed"
    assert (folder / "hurt" / "target_lora-1" / "checkpoint").is_dir()
    with mock.patch("pomona.runs.system_trainer.fit", wraps=fit) as fits:
        done = call(folder, "experiment", "exp.yaml", "--output", "hurt", "--resume")
    assert done.code == 0, done.err
    assert fits.call_count == 1  # the other three were trained before
    after = listing(folder / "hurt")
    assert {name: time for name, time in after.items() if name.startswith(("target_lora-0", "p50-0"))} == {
        name: time for name, time in before.items() if name.startswith(("target_lora-0", "p50-0"))
    }
    for cell in CELLS:
        assert adapter_bytes(folder / "hurt" / cell) == adapter_bytes(whole / cell)
    assert (folder / "hurt" / "table.md").read_bytes() == (whole / "table.md").read_bytes()
    assert (folder / "hurt" / "experiment.json").read_bytes() == (whole / "experiment.json").read_bytes()


def test_an_interrupt_stops_at_once(folder: Path) -> None:
    with mock.patch("pomona.runs.system_trainer.fit", side_effect=KeyboardInterrupt):
        stopped = call(folder, "experiment", "exp.yaml", "--output", "stopped")
    assert stopped.code == 130
    assert json.loads((folder / "stopped" / "target_lora-0" / "record.json").read_text())["status"] == "interrupted"
    assert {path.name for path in (folder / "stopped").iterdir()} == {"experiment.yaml", "target_lora-0"}


def test_what_is_done_is_not_done_again_and_the_model_is_not_loaded(folder: Path, whole: Path) -> None:
    before = {name: time for name, time in listing(whole).items() if "-" in name}
    with mock.patch.object(shared, "load_backbone", side_effect=AssertionError("the model was loaded")):
        done = call(folder, "experiment", "exp.yaml", "--resume", "--json")
    assert done.code == 0, done.err
    assert done.out == (whole / "experiment.json").read_text()
    assert {name: time for name, time in listing(whole).items() if "-" in name} == before


def test_a_cell_that_fails_is_in_the_table_and_the_others_go_on(folder: Path) -> None:
    diverging = {"controller": {"name": "fixed", "prune_ratio": 0}, "tuning.learning_rate": 1000, "tuning.weight_decay": 1000}
    write_recipe(folder / "fails.yaml", content(systems={"diverges": diverging, "bare": {"baseline": "zero_shot"}}, against="bare"))
    done = call(folder, "experiment", "fails.yaml", "--output", "fails")
    assert done.code == 1
    assert done.errors == ["error: 2 of 4 cells failed: diverges-0, diverges-1"]
    text = (folder / "fails" / "table.md").read_text()
    assert done.out.startswith(text)
    assert "2 of 4 cells are done" in text
    assert "| diverges | 0 of 2 |" in text
    assert "- diverges-0: failed, PomonaError: " in text
    assert "- diverges-1: failed, PomonaError: " in text
    assert "not finite" in text
    assert {json.loads((folder / "fails" / f"bare-{s}" / "record.json").read_text())["status"] for s in (0, 1)} == {"done"}
    assert not (folder / "fails" / "bare-0" / "adapter").exists()
    again = call(folder, "experiment", "fails.yaml", "--output", "fails", "--resume")
    assert again.code == 1
    assert (folder / "fails" / "bare-0" / "predictions.jsonl").exists()


def test_the_bare_model_answers_once_for_all_seeds(folder: Path) -> None:
    write_recipe(folder / "bare.yaml", content(name="bare", systems={"bare": {"baseline": "zero_shot"}}, against=None))
    with mock.patch("pomona.runs.adapt.answer", wraps=answer) as asked:
        done = call(folder, "experiment", "bare.yaml")
    assert done.code == 0, done.err
    assert asked.call_count == 1
    texts = [(folder / "runs" / "bare" / f"bare-{seed}" / "predictions.jsonl").read_bytes() for seed in (0, 1)]
    assert texts[0] == texts[1]


def test_it_may_grow_and_be_run_in_parts(folder: Path, whole: Path) -> None:
    shutil.copytree(whole, folder / "grown")
    more = SYSTEMS | {"unpruned": {"controller": {"name": "fixed", "prune_ratio": 0}}}
    write_recipe(folder / "more.yaml", content(systems=more, seeds=[0, 1, 2]))
    part = ("--output", "grown", "--resume", "--systems", "unpruned", "--seeds", "0,2")
    done = call(folder, "experiment", "more.yaml", *part)
    assert done.code == 0, done.err
    text = (folder / "grown" / "table.md").read_text()
    assert "6 of 9 cells are done; seeds 0, 1, 2." in text
    assert "| unpruned    | 2 of 3 |" in text
    assert "- p50-2: missing" in text
    listed = call(folder, "experiment", "more.yaml", "--output", "grown", "--dry-run")
    assert listed.out.splitlines()[:3] == [
        "done         grown/target_lora-0", "done         grown/p50-0", "done         grown/unpruned-0"
    ]  # fmt: skip
    assert "new          grown/p50-2" in listed.out.splitlines()


def test_a_changed_recipe_or_changed_data_are_refused_with_the_cell(folder: Path, whole: Path) -> None:
    before = listing(whole)
    changed = SYSTEMS | {"p50": {"controller": {"name": "fixed", "prune_ratio": 0.6}}}
    for changes, cell in (({"systems": changed}, "p50-0"), ({"seeds": [1, 0]}, "target_lora-1"), ({"draws": 200}, "target_lora-0")):
        write_recipe(folder / "changed.yaml", content(**changes))
        refused = call(folder, "experiment", "changed.yaml", "--resume")
        assert refused.code == 2
        assert refused.errors[0].startswith(f"error: runs/small/{cell}/recipe.yaml: the recipe differs"), refused.errors
    original = (folder / "data.jsonl").read_bytes()
    try:
        write_rows(folder / "data.jsonl", rows(44))
        refused = call(folder, "experiment", "exp.yaml", "--resume")
    finally:
        (folder / "data.jsonl").write_bytes(original)
    assert refused.code == 2
    assert refused.errors[0].startswith("error: target_lora-0: the data are not as they were when this cell was run")
    assert listing(whole) == before


def test_an_experiment_is_not_overwritten_and_nothing_is_not_resumed(folder: Path, whole: Path) -> None:
    before = listing(whole)
    taken = call(folder, "experiment", "exp.yaml")
    assert (taken.code, len(taken.errors)) == (2, 1)
    assert taken.errors[0].startswith("error: runs/small: already exists")
    absent = call(folder, "experiment", "exp.yaml", "--output", "absent", "--resume")
    assert absent.code == 2
    assert absent.errors[0].startswith("error: absent: no experiment to resume")
    assert not (folder / "absent").exists()
    assert listing(whole) == before


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({"data.train": "nowhere.jsonl"}, "b-0: nowhere.jsonl: no such file"),
        ({"model": "nowhere"}, "b-0: model: neither a folder|b-0: model: no such model folder"),
        ({"sources.1.adapter": "adapters/nowhere"}, "b-0: adapters/nowhere"),
        ({"splits.test": 5}, "b-0: has other test examples than a-0, so the two cannot be compared. Make it a setting"),
        ({"splits.train": 400}, "b-0: train: too few examples: train needs 400"),
        ({"baseline": "target_lora", "lora.target_modules": ["nothing"]}, "b-0: "),
        ({"evaluation.metrics": ["chrf", "bleu"]}, "b-0: is scored by other metrics than a-0"),
    ],
    ids=str,
)
def test_what_is_wrong_with_any_cell_is_found_before_anything_is_written(
    folder: Path, systems: dict[str, Any], message: str
) -> None:
    wrong = content(systems={"a": {"baseline": "zero_shot"}, "b": systems}, against="a", metrics=None)
    write_recipe(folder / "wrong.yaml", {key: value for key, value in wrong.items() if value is not None})
    for arguments in ((), ("--dry-run",)):
        refused = call(folder, "experiment", "wrong.yaml", "--output", "wrong", *arguments)
        assert refused.code == 2
        assert len(refused.errors) == 1
        assert refused.errors[0].removeprefix("error: ").startswith(tuple(message.split("|"))), refused.errors
        assert not (folder / "wrong").exists()


def test_settings_have_folders_and_tables_of_their_own(folder: Path) -> None:
    write_rows(folder / "other.jsonl", rows(40, first=40))
    settings = {"one": {}, "two": {"data.train": "other.jsonl", "splits.test": 5}}
    write_recipe(
        folder / "two.yaml", content(name="two", settings=settings, systems={"bare": {"baseline": "zero_shot"}}, against=None)
    )
    done = call(folder, "experiment", "two.yaml", "--seeds", "1")
    assert done.code == 0, done.err
    found = ExperimentRecord.model_validate_json((folder / "runs" / "two" / "experiment.json").read_text())
    assert [cell.path for cell in found.cells if cell.status == "done"] == ["one/bare-1", "two/bare-1"]
    assert [found.settings[name].metrics["loss"]["bare"].examples for name in ("one", "two")] == [6, 5]
    assert "## one\n" in done.out
    assert "2/2 two/bare-1: evaluating Zero shot" in done.err
