"""`evaluation.tune`: every trained system is trained at every point of one grid, and the dev set chooses each one's point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pydantic import ValidationError
from tests.end_to_end.setting import call, comparable, inside, lines, make_setting, recipe, write_recipe
from tests.tiny import tiny_backbone, tiny_examples

import pomona.runs.system_trainer as trainer_module
from pomona.adapters import read_adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.control import Fixed
from pomona.errors import PomonaError
from pomona.report.page import write_report
from pomona.report.read import read_run
from pomona.report.tuned_table import tuned_table
from pomona.runs.adapt import adapt
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.plan import prepare
from pomona.runs.read_recipe import parse_recipe, read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.record import PointRecord, RunRecord
from pomona.runs.system_trainer import prefixes_are_runs
from pomona.runs.tune import Point, Tune
from pomona.runs.tuned import tune
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning

GRID = {"learning_rate": [0.001, 0.01, 0.02], "epochs": [1, 2]}
TUNING = {"epochs": 3, "batch_size": 8, "learning_rate": 0.005, "checkpoint_steps": 1}  # 3 steps an epoch
TRAINED = ["target_lora", "merge_finetune", "pomona"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("tune"))
    evaluation = {"draws": 100, "baselines": ["zero_shot", "target_lora", "merge_finetune"], "tune": GRID}
    write_recipe(folder / "run.yaml", recipe(name="run", tuning=TUNING, evaluation=evaluation, lora={}))
    return folder


def run(folder: Path, output: str, *changes: str, **options: Any) -> RunRecord:
    with inside(folder):
        return adapt(read_recipe("run.yaml", Recipe, changes), output, **options)


@pytest.fixture(scope="module")
def tuned(folder: Path) -> RunRecord:
    return run(folder, "tuned")


def points(record: RunRecord, system: str) -> list[tuple[float | None, int | None]]:
    return [(point.learning_rate, point.epochs) for point in record.tuned[system]]


def chosen(record: RunRecord, system: str) -> PointRecord:
    (found,) = [point for point in record.tuned[system] if point.chosen]
    return found


# The grid ---------------------------------------------------------------------------------------------------------------


def test_the_points_are_the_product_and_the_longest_training_stands_for_its_prefixes() -> None:
    grid = Tune(learning_rate=(0.1, 0.2), epochs=(3, 1))
    assert grid.points(prefixes=False) == [Point(0.1, 3), Point(0.1, 1), Point(0.2, 3), Point(0.2, 1)]
    assert grid.points(prefixes=True) == [Point(0.1, 3), Point(0.2, 3)]
    assert Tune(learning_rate=(0.1,)).points(prefixes=True) == [Point(0.1)]
    given = Tuning(epochs=7, learning_rate=0.3, batch_size=5)
    assert Point(epochs=2).tuning(given) == Tuning(epochs=2, learning_rate=0.3, batch_size=5)
    assert Point().tuning(given) == given
    assert [Point().named("it"), Point(0.1, 3).named("it")] == ["it", "it@learning_rate=0.1,epochs=3"]


def test_the_rate_of_coefficients_follows_that_of_the_factors() -> None:
    given = Tuning(learning_rate=0.02)
    assert Point(0.01).weights_rate(0.5, given) == 0.25
    assert Point(epochs=3).weights_rate(0.5, given) == 0.5
    assert Point(0.01).weights_rate(None, given) is None


@pytest.mark.parametrize(
    "grid",
    [{}, {"epochs": [0]}, {"learning_rate": [0.0]}, {"learning_rate": [0.1, "1e-1"]}, {"epochs": [1.5]}, {"rate": [1]}],
    ids=str,
)
def test_a_grid_that_is_none_is_refused(grid: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Tune.model_validate(grid)


@pytest.mark.parametrize(("schedule", "average"), [("constant", "none"), ("once", "none"), (None, "ema")])
def test_a_training_of_fewer_epochs_is_the_first_part_of_a_longer_one(schedule: Any, average: Any) -> None:
    """What `prefixes` rests on, to the bit; without pruning, and with a given ratio."""
    data = FitData(tiny_examples(6, seed=1), (), tiny_examples(3, seed=2))
    pruning = None if schedule is None else Pruning(schedule=schedule)
    fitted: list[Fitted] = []
    for epochs in (2, 3):
        backbone = tiny_backbone()
        start = new_adapter(
            backbone, [path for path in backbone.shapes() if "q_proj" in path], 2, 4.0, torch.Generator().manual_seed(1)
        )
        with attached(backbone, [start], dropout=0.1) as attachment:
            settings = Tuning(epochs=epochs, batch_size=3, learning_rate=0.01, average=average)
            fitted.append(fit(attachment, data, settings, pruning=pruning, controller=Fixed(0.3)))
    short, long = fitted
    assert list(long.history[: len(short.history)]) == list(short.history)
    assert long.dev_loss is not None
    assert short.dev_loss is not None
    assert long.dev_loss <= short.dev_loss


@pytest.mark.parametrize(
    ("changes", "pruned", "expected"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"controller": {"name": "fixed", "prune_ratio": 0.3}}, True, True),
        ({"controller": {"name": "fixed", "prune_ratio": 0.3}, "pruning": {"schedule": "cubic"}}, True, False),
        ({"controller": {"name": "grid"}}, True, False),
        ({"tuning": {"average": "ema"}}, False, True),
        ({"tuning": {"average": "uniform"}}, False, False),
        ({"tuning": {"average": "ema", "average_from": 0.2}}, False, False),
    ],
    ids=str,
)
def test_where_nothing_depends_on_the_length_of_a_training(changes: dict[str, Any], pruned: bool, expected: bool) -> None:
    assert prefixes_are_runs(parse_recipe(recipe(**changes), Recipe), pruned=pruned) == expected


# The choice -------------------------------------------------------------------------------------------------------------


def fake(scores: tuple[float, ...], tokens: int = 5, dev_loss: float = 1.0) -> Fitted:
    adapter = read_adapter  # stands for an adapter that nobody looks at
    return Fitted(adapter, 1, dev_loss, scores, {}, {}, None, None, {}, [], 2.0, 0.5, tokens)  # pyright: ignore[reportArgumentType]


def choose(scores: dict[float, tuple[float, ...] | None]) -> tuple[list[Any], dict[str, Fitted]]:
    trained: dict[str, Fitted] = {"other@learning_rate=2.0": fake((9.0,))}

    def train(point: Point) -> Fitted:
        assert point.learning_rate is not None
        found = scores[point.learning_rate]
        if found is None:
            raise PomonaError("the training loss is not finite")
        trained[point.named("it_search")] = fake((), tokens=100)
        trained[point.named("it")] = fake(found)
        return trained[point.named("it")]

    return tune([Point(rate) for rate in scores], train, trained, lambda name: name.startswith("it")), trained


def test_the_highest_mean_score_wins_and_of_equals_the_first() -> None:
    tried, trained = choose({1.0: (0.0, 2.0), 2.0: (3.0, 2.0), 3.0: (2.0, 3.0)})
    assert [one.chosen for one in tried] == [False, True, False]
    assert [one.score for one in tried] == [1.0, 2.5, 2.5]
    assert [(one.runs, one.tokens, one.seconds) for one in tried] == [(2, 105, 5.0)] * 3
    kept = {"it", "it_search", "other@learning_rate=2.0"}
    assert set(trained) == kept | {f"{name}@learning_rate={rate}" for name in ("it", "it_search") for rate in (1.0, 3.0)}
    assert trained["it"].dev_scores == (3.0, 2.0)


def test_within_the_tolerance_the_loss_chooses() -> None:
    """The means are 3, 2 and 1; the differences to the first have errors of 1, and none."""
    given = {1.0: ((4.0, 2.0), 3.0), 2.0: ((2.0, 2.0), 1.0), 3.0: ((2.0, 0.0), 0.5)}
    for tolerance, expected in ((0.0, 1.0), (0.9, 1.0), (1.0, 2.0)):
        trained: dict[str, Fitted] = {}

        def train(point: Point, trained: dict[str, Fitted] = trained) -> Fitted:
            scores, dev_loss = given[point.learning_rate or 0.0]
            return trained.setdefault(point.named("it"), fake(scores, dev_loss=dev_loss))

        tried = tune([Point(rate) for rate in given], train, trained, lambda name: name == "it", tolerance)
        assert [one.point.learning_rate for one in tried if one.chosen] == [expected]
        assert trained["it"].dev_scores == given[expected][0]


def test_a_training_that_fails_is_the_worst_and_all_that_fail_are_an_error() -> None:
    tried, trained = choose({1.0: None, 2.0: (-50.0,)})
    assert [(one.chosen, one.error) for one in tried] == [(False, "the training loss is not finite"), (True, "")]
    assert (tried[0].tokens, tried[0].seconds, tried[0].score) == (None, None, None)
    assert "it" in trained
    with pytest.raises(PomonaError, match="no point of the grid could be trained; the first: the training loss is not finite"):
        choose({1.0: None, 2.0: None})


# A run ------------------------------------------------------------------------------------------------------------------


def test_every_trained_system_gets_the_same_grid(tuned: RunRecord) -> None:
    every = [(rate, epochs) for rate in GRID["learning_rate"] for epochs in GRID["epochs"]]
    assert points(tuned, "pomona") == every, "its ratio is learned, which takes the length of the run into account"
    assert points(tuned, "target_lora") == points(tuned, "merge_finetune") == [(rate, 2) for rate in GRID["learning_rate"]]
    assert sorted(tuned.tuned) == sorted(TRAINED)


def test_each_system_is_the_one_that_the_dev_set_prefers(folder: Path, tuned: RunRecord) -> None:
    for system in TRAINED:
        best = chosen(tuned, system)
        assert best.dev_loss == min(point.dev_loss or 9e9 for point in tuned.tuned[system])
        training = tuned.systems[system].training
        assert training is not None
        assert (training["learning_rate"], training["epochs"]) == (best.learning_rate, best.epochs)
        assert tuned.systems[system].tuned_over == GRID
    best = chosen(tuned, "pomona")
    changes = (f"tuning.learning_rate={best.learning_rate}", f"tuning.epochs={best.epochs}", "evaluation.tune=null")
    alone = run(folder, "alone", *changes, "evaluation.baselines=[]")
    assert alone.fingerprints["adapter"] == tuned.fingerprints["adapter"], "the same as a run at the chosen point alone"
    assert alone.answer == tuned.answer
    assert alone.tuned == {}


def test_the_whole_grid_is_counted(tuned: RunRecord) -> None:
    passes = {"pomona": 3 * (1 + 2), "target_lora": 3 * 2, "merge_finetune": 3 * 2}
    one_pass = sum(tuned.tokens.values()) / sum(passes.values())
    for system, count in passes.items():
        counted = [point.tokens or 0 for point in tuned.tuned[system]]
        assert sum(counted) == count * one_pass
        assert sum(tokens for name, tokens in tuned.tokens.items() if name.partition("@")[0] == system) == sum(counted)
        seconds = sum(point.seconds or 0.0 for point in tuned.tuned[system])
        assert tuned.systems[system].train_seconds == pytest.approx(seconds)
        assert (tuned.systems[system].training or {})["runs"] == len(counted)
    spent = tuned.timing.train_seconds + tuned.timing.probe_seconds
    assert spent == pytest.approx(sum(tuned.systems[system].train_seconds or 0.0 for system in TRAINED))


def test_the_plan_counts_the_runs(folder: Path, tuned: RunRecord) -> None:
    with inside(folder):
        plan = prepare(read_recipe("run.yaml", Recipe))
    assert [(one.name, one.runs, one.steps, one.tokens) for one in plan.trainings] == [
        ("pomona", 6, 27, sum(point.tokens or 0 for point in tuned.tuned["pomona"])),
        ("target_lora", 3, 18, sum(point.tokens or 0 for point in tuned.tuned["target_lora"])),
        ("merge_finetune", 3, 18, sum(point.tokens or 0 for point in tuned.tuned["merge_finetune"])),
    ]


def test_the_history_tells_the_chosen_training_under_the_systems_name(folder: Path, tuned: RunRecord) -> None:
    events = lines(folder / "tuned" / "history.jsonl")
    for system in TRAINED:
        name = Point(chosen(tuned, system).learning_rate, chosen(tuned, system).epochs).named(system)
        own = [event for event in events if event["system"] == system]
        assert own
        assert own == [event | {"system": system} for event in events if event["system"] == name]


def test_the_report_shows_every_point(folder: Path, tuned: RunRecord) -> None:
    table = tuned_table(read_run(folder / "tuned").record)
    assert [row[0].text for row in table.rows].count("Pomona") == 6
    assert [row[0].note for row in table.rows].count("chosen") == len(TRAINED)
    page = write_report(folder / "tuned").read_text(encoding="utf-8")
    assert "How the systems were tuned" in page
    assert "all systems at points of the grid that were not chosen" in page


def test_a_killed_run_goes_on_without_training_a_finished_point_again(folder: Path, tuned: RunRecord) -> None:
    trained: list[str] = []

    class Killed(BaseException):
        """Nothing catches this."""

    def spy(*args: Any, system: str, **options: Any) -> Fitted:
        trained.append(system)
        if len(trained) == 8:
            raise Killed
        return fit(*args, system=system, **options)

    with mock.patch.object(trainer_module, "fit", spy):
        with pytest.raises(Killed):
            run(folder, "killed")
        run(folder, "killed", resume=True)
    assert len(trained) == 13  # 12 trainings, of which one was begun twice
    assert [name for name in trained if trained.count(name) > 1] == [trained[7]] * 2

    def untimed(folder: Path) -> dict[str, Any]:
        found = comparable(folder)
        for tried in found["tuned"].values():
            for point in tried:
                del point["seconds"]
        return found

    assert untimed(folder / "killed") == untimed(folder / "tuned")
    assert lines(folder / "killed" / "history.jsonl") == lines(folder / "tuned" / "history.jsonl")


def test_two_passes_are_tuned_as_a_whole_and_a_merged_target_by_itself(folder: Path) -> None:
    two = "controller={name: grasp, mode: two_pass, interval_steps: 1}"
    grid = "evaluation.tune={learning_rate: [0.001, 0.02]}"
    found = run(folder, "two", two, grid, "merge.target=true", "evaluation.baselines=[target_lora]", "tuning.epochs=1")
    assert [(point.runs, point.learning_rate) for point in found.tuned["pomona"]] == [(2, 0.001), (2, 0.02)]
    assert [point.runs for point in found.tuned["target_lora"]] == [1, 1]
    systems = {"pomona", "pomona_search", "target_lora", "merged_target"}  # the merged one has another rank than the opponent
    assert {name for name in found.tokens if "@" not in name} == systems
    assert len(found.tokens) == 2 * len(systems)
    assert [point.runs for point in found.tuned["merged_target"]] == [1, 1]
    assert found.rounds
    assert (found.systems["pomona"].training or {})["runs"] == 4


def test_a_search_over_ratios_is_tuned_as_a_whole(folder: Path) -> None:
    grid = "evaluation.tune={epochs: [1, 2]}"
    found = run(folder, "grid", "controller={name: grid, prune_ratios: [0.2, 0.6]}", grid, "evaluation.baselines=[]")
    assert [(point.runs, point.epochs) for point in found.tuned["pomona"]] == [(2, 1), (2, 2)]
    assert found.answer is not None
    assert [point.prune_ratio for point in found.answer.curve] == [0.2, 0.6]
    assert (found.systems["pomona"].training or {})["runs"] == 4


def test_coefficients_are_tuned_by_the_same_grid(folder: Path) -> None:
    """Their factors are frozen, so a grid of the factors' rate alone would train the same thing again and again."""
    coefficients = "merge={train: coefficients, coefficients: {learning_rate: 0.1}}"
    fixed = "controller={name: fixed, prune_ratio: 0}"
    found = run(
        folder, "coefficients", coefficients, fixed, "evaluation.tune={learning_rate: [0.0005, 0.005]}", "evaluation.baselines=[]"
    )
    losses = [point.dev_loss for point in found.tuned["pomona"]]
    assert len(set(losses)) == 2
    best = chosen(found, "pomona").learning_rate
    assert best is not None
    training = found.systems["pomona"].training
    assert training is not None
    assert training["weights_learning_rate"] == pytest.approx(0.1 * best / 0.005)
    assert training["runs"] == 2
    alone = run(folder, "one", coefficients, fixed, "evaluation.baselines=[]", "evaluation.tune=null", "tuning.learning_rate=0.005")
    assert losses[1] == next(event["dev_loss"] for event in lines(folder / "one" / "history.jsonl")[::-1] if event.get("best"))
    assert alone.tuned == {}


def test_cells_of_an_experiment_obey_it_alike(folder: Path) -> None:
    content = {
        "name": "cells",
        "recipe": recipe(
            tuning=TUNING,
            controller={"name": "fixed", "prune_ratio": 0},
            evaluation={"draws": 100, "tune": {"learning_rate": [0.001, 0.01]}},
        ),
        "seeds": [0],
        "systems": {"target": {"baseline": "target_lora"}, "plain": {}, "with_target": {"merge.target": True}},
    }
    write_recipe(folder / "cells.yaml", content)
    done = call(folder, "experiment", "cells.yaml", "--output", "cells")
    assert done.code == 0, done.err
    record = ExperimentRecord.model_validate_json((folder / "cells" / "experiment.json").read_text())
    for cell in record.cells:
        assert [point.learning_rate for point in cell.tuned] == [0.001, 0.01]
        record_of = RunRecord.model_validate_json((folder / "cells" / cell.path / "record.json").read_text())
        every = [point.seconds or 0.0 for points in record_of.tuned.values() for point in points]
        assert cell.train_seconds == pytest.approx(sum(every))
        # A target LoRA that is merged, tuned before in a cell of its own, is taken over with all its points.
        tuned_before = record_of.tuned.get("target_lora", []) if cell.system == "with_target" else []
        assert record_of.timing.reused_seconds == pytest.approx(sum(point.seconds or 0.0 for point in tuned_before))
        assert (cell.system == "with_target") == bool(tuned_before)
    table = (folder / "cells" / "table.md").read_text()
    assert "### tuned on the dev set" in table
    assert "learning_rate" not in table.partition("### systems")[2], "a rate that the dev set chose is no difference in training"
    assert json.loads((folder / "cells" / "target-0" / "record.json").read_text())["tuned"]["target_lora"]
