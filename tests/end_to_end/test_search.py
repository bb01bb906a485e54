"""Whole runs of the main job that choose: a grid of ratios, killed and resumed; an epoch by a task metric; what is merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sacrebleu
import torch
from tests.end_to_end.setting import adapter_bytes, call, comparable, inside, lines, make_setting, quota, recipe, write_recipe

from pomona.adapters import read_adapter
from pomona.backbone.attach import Attachment
from pomona.backbone.generate import generate
from pomona.backbone.load import load_backbone
from pomona.backbone.loss import example_losses
from pomona.errors import InputError
from pomona.evaluation.answers import answer
from pomona.evaluation.micro_dev_costs import micro_dev_costs
from pomona.pruning import pruned_count
from pomona.report.input_tables import choices_table
from pomona.report.page import write_report
from pomona.runs.adapt import adapt
from pomona.runs.examples import read_splits
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord
from pomona.runs.store import RunStore
from pomona.tuning.progress import Silent
from pomona.tuning.settings import Fitted

RATIOS = [0.2, 0.5, 0.8]
TRIALS = [f"pomona_{ratio}" for ratio in RATIOS]
SHORT = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1}  # 12 steps
GRID = "controller={name: grid, prune_ratios: [0.2, 0.5, 0.8]}"
FIXED = "controller={name: fixed, prune_ratio: 0.5}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("search"))
    evaluation = {"draws": 200, "baselines": ["merge_finetune"]}
    write_recipe(folder / "run.yaml", recipe(name="run", tuning=SHORT, evaluation=evaluation))
    return folder


def run(folder: Path, output: str, *changes: str, **options: Any) -> RunRecord:
    with inside(folder):
        return adapt(read_recipe("run.yaml", Recipe, changes), output, **options)


@pytest.fixture(scope="module")
def grid(folder: Path) -> RunRecord:
    return run(folder, "grid", GRID)


# A grid -----------------------------------------------------------------------------------------------------------------


def test_the_record_of_a_grid_has_its_curve(grid: RunRecord) -> None:
    found = grid.answer
    assert found is not None
    assert (found.controller, grid.prune_ratio) == ("grid", found.prune_ratio)
    assert [point.prune_ratio for point in found.curve] == RATIOS
    best = found.curve[RATIOS.index(found.prune_ratio)]
    assert (best.reward, best.low, best.high) == (0.0, 0.0, 0.0)
    for point in found.curve:  # what each loses against the best, with an interval
        assert point.low <= point.reward <= min(point.high, 0.0)
    assert grid.rounds == []
    assert list(grid.systems) == ["merge_finetune", "pomona"]
    assert set(grid.tokens) == {"merge_finetune", "pomona", *TRIALS} - {f"pomona_{found.prune_ratio}"}
    assert len(set(grid.tokens.values())) == 1
    seconds = {name: system.train_seconds or 0.0 for name, system in grid.systems.items()}
    assert sum(seconds.values()) == pytest.approx(grid.timing.train_seconds)
    assert seconds["pomona"] > seconds["merge_finetune"], "a grid costs all its runs"
    assert all(module.sparsity_A == pytest.approx(found.prune_ratio, abs=0.01) for module in grid.modules)


def test_every_run_of_a_grid_is_in_the_history(folder: Path, grid: RunRecord) -> None:
    assert grid.answer is not None
    told = lines(folder / "grid" / "history.jsonl")
    systems = [*TRIALS, "merge_finetune"]
    assert [event["system"] for event in told] == [system for system in systems for _ in range(14)]
    for system, ratio in zip(TRIALS, RATIOS, strict=True):
        assert {event["prune_ratio"] for event in told if event["system"] == system and event["kind"] == "step"} == {ratio}
    scores = {
        ratio: max(-event["dev_loss"] for event in told if event["system"] == system and event["kind"] == "epoch")
        for system, ratio in zip(TRIALS, RATIOS, strict=True)
    }
    assert max(scores, key=lambda ratio: scores[ratio]) == grid.answer.prune_ratio
    for point in grid.answer.curve:
        assert point.reward == pytest.approx(scores[point.prune_ratio] - max(scores.values()), abs=1e-9)


def test_the_main_system_is_that_of_a_run_at_the_chosen_ratio(folder: Path, grid: RunRecord) -> None:
    fixed = run(folder, "fixed", f"controller={{name: fixed, prune_ratio: {grid.prune_ratio}}}")
    assert adapter_bytes(folder / "fixed") == adapter_bytes(folder / "grid")
    assert fixed.metrics == grid.metrics
    assert fixed.modules == grid.modules
    assert (folder / "fixed" / "predictions.jsonl").read_bytes() == (folder / "grid" / "predictions.jsonl").read_bytes()


def test_a_grid_that_was_killed_goes_on_in_the_run_in_which_it_stood(folder: Path, grid: RunRecord) -> None:
    """In the middle of the second. Runs that were done are not done again."""
    output, append = "killed", RunStore.append_event

    def until(store: RunStore, event: dict[str, Any]) -> None:
        if event["system"] == TRIALS[1] and event["step"] > 7:
            raise KeyboardInterrupt
        append(store, event)

    with mock.patch.object(RunStore, "append_event", until), pytest.raises(KeyboardInterrupt):
        run(folder, output, GRID)
    kept = folder / output / "checkpoint"
    assert (kept / TRIALS[0] / "fitted.json").exists()
    assert (kept / f"{TRIALS[1]}.safetensors").exists()
    done = (kept / TRIALS[0] / "fitted.json").stat().st_mtime_ns
    saved: list[str] = []
    save = RunStore.save_trained

    def spy(store: RunStore, system: str, *trained: Any) -> Fitted:
        saved.append(system)
        assert (kept / TRIALS[0] / "fitted.json").stat().st_mtime_ns == done
        return save(store, system, *trained)

    with mock.patch.object(RunStore, "save_trained", spy):
        again = run(folder, output, GRID, resume=True)
    assert saved == [*TRIALS[1:], "merge_finetune"]
    assert again.answer == grid.answer
    assert comparable(folder / output) == comparable(folder / "grid")
    assert adapter_bytes(folder / output) == adapter_bytes(folder / "grid")
    for name in ("history.jsonl", "predictions.jsonl"):
        assert (folder / output / name).read_bytes() == (folder / "grid" / name).read_bytes(), name
    assert not kept.exists()


# Chosen by a metric -----------------------------------------------------------------------------------------------------


def test_the_epoch_is_chosen_by_the_metric_of_the_answers_to_the_dev_set(folder: Path) -> None:
    changes = ["select_by=chrf", FIXED, "tuning.epochs=4", "tuning.learning_rate=0.03"]
    run(folder, "chrf", *changes)
    read = read_recipe(folder / "run.yaml", Recipe, changes)
    for system in ("pomona", "merge_finetune"):
        epochs = [one for one in lines(folder / "chrf" / "history.jsonl") if one["system"] == system and one["kind"] == "epoch"]
        scores = [one["dev_score"] for one in epochs]
        assert len(set(scores)) > 1
        chosen = max(place for place, one in enumerate(epochs) if one["best"])
        assert scores[chosen] == max(scores)
        assert scores.index(max(scores)) == chosen
        if system == "pomona":
            # Its epoch by the loss is another one, so it is the metric that decided.
            assert min(range(len(epochs)), key=lambda place: epochs[place]["dev_loss"]) != chosen
            # The exported adapter answers as it did then.
            with inside(folder):
                backbone, dev = load_backbone("model", "cpu"), read_splits(read).dev
                found = read_adapter("chrf/adapter")
                given = answer(backbone, found, dev, read.task, batch_size=4, max_tokens=512, progress=Silent(), label=system)
            texts = [text or "" for text in given.texts]
            by_hand = [sacrebleu.sentence_chrf(text, list(one.references)).score for text, one in zip(texts, dev, strict=True)]
            assert sum(by_hand) / len(by_hand) == pytest.approx(scores[chosen], abs=0.01)
            assert sum(given.losses) / len(given.losses) == pytest.approx(epochs[chosen]["dev_loss"], abs=1e-4)


def test_a_grid_is_judged_by_the_metric_too(folder: Path) -> None:
    found = run(folder, "grid-chrf", GRID, "select_by=chrf", "evaluation.baselines=[]")
    assert found.answer is not None
    told = [event for event in lines(folder / "grid-chrf" / "history.jsonl") if event["kind"] == "epoch"]
    best = {ratio: max(e["dev_score"] for e in told if e["system"] == f"pomona_{ratio}") for ratio in RATIOS}
    assert best[found.answer.prune_ratio] == max(best.values())
    for point in found.answer.curve:
        assert point.reward == pytest.approx(best[point.prune_ratio] - max(best.values()), abs=1e-6)


# Rewarded by a metric ---------------------------------------------------------------------------------------------------

LEARNED = "controller={name: grasp, interval_steps: 6, mode: two_pass}"


def test_a_controller_is_rewarded_by_the_answers_to_the_micro_dev_set(folder: Path) -> None:
    changes = [LEARNED, "reward={loss: 0.25, chrf: 1}", "evaluation.baselines=[]", "tuning.learning_rate=0.03"]
    read = read_recipe(folder / "run.yaml", Recipe, changes)
    with inside(folder):
        micro_dev = read_splits(read).micro_dev
    means: list[float] = []

    def spy(attachment: Attachment, positions: Sequence[int], **options: Any) -> list[float]:
        """The costs again, from the definition, with the weights that are attached in this moment."""
        found = micro_dev_costs(attachment, positions, **options)
        losses = example_losses(attachment.backbone, options["encoded"], 2)
        answers = generate(attachment.backbone, [one.prompt for one in micro_dev], max_new_tokens=6, batch_size=2)
        scores = [
            sacrebleu.sentence_chrf(read.task.parse(given.text), list(one.references)).score
            for given, one in zip(answers, micro_dev, strict=True)
            if given is not None
        ]
        assert found == pytest.approx([0.25 * a - b / 100 for a, b in zip(losses, scores, strict=True)], abs=1e-5)
        means.append(sum(found) / len(found))
        return found

    with mock.patch("pomona.runs.system_trainer.micro_dev_costs", spy):
        record = run(folder, "rewarded", *changes)
    assert record.recipe["reward"] == {"loss": 0.25, "chrf": 1.0}
    assert len(record.rounds) == 2
    measured = iter(means)
    for seen in record.rounds:
        before = next(measured)
        assert seen.loss_before == pytest.approx(before)
        assert [one.reward for one in seen.candidates] == pytest.approx([before - next(measured) for _ in seen.candidates])
    assert next(measured, None) is None  # the pass under the answer asked for none
    assert len({round(mean, 6) for mean in means}) > 4


# A ratio for each group of layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["single_pass", "two_pass"])
def test_groups_of_layers_get_ratios_of_their_own(folder: Path, mode: str) -> None:
    controller = f"controller={{name: layerwise, groups: 2, interval_steps: 3, commit_level: 0, mode: {mode}}}"
    found = run(folder, f"layers-{mode}", controller, "evaluation.baselines=[]", "tuning.learning_rate=0.03")
    answer = found.answer
    assert answer is not None
    assert [(one.first_layer, one.last_layer) for one in answer.by_group] == [(0, 0), (1, 1)]
    ratios = [one.prune_ratio for one in answer.by_group]
    in_force = [one.by_group for one in found.rounds if one.by_group is not None]
    assert any(first != second for first, second in in_force)
    for module in found.modules:
        assert module.layer is not None
        if module.projection == "down_proj":  # one source has it, so its factors are padded when they are written
            continue
        adapter = read_adapter(folder / f"layers-{mode}" / "adapter")[module.module]
        for sparsity, n in ((module.sparsity_A, adapter.A.numel()), (module.sparsity_B, adapter.B.numel())):
            assert round(sparsity * n) == quota(ratios[module.layer], n, (1, 1))  # two sources of one rank
    assert found.prune_ratio == answer.prune_ratio == pytest.approx(found.sparsity, abs=0.02)
    told = lines(folder / f"layers-{mode}" / "history.jsonl")
    (settled,) = (one for one in told if one["kind"] == "settled")
    assert settled["by_group"] == ratios
    assert all(len(one.by_group or ()) == 2 for one in found.rounds)
    assert all(len(candidate.by_group or ()) == 2 for one in found.rounds for candidate in one.candidates)
    page = write_report(folder / f"layers-{mode}").read_text(encoding="utf-8")
    assert "The run learned a prune ratio for each of 2 groups of layers" in page


@pytest.mark.parametrize("controller", ["{name: layerwise, groups: 3}", "{name: fixed, prune_ratio: [0.1, 0.2, 0.3]}"])
def test_more_groups_than_layers_are_found_before_anything_is_trained(folder: Path, controller: str) -> None:
    with pytest.raises(InputError, match="controller: cannot have ratios for 3 groups of layers: the adapters are on 2 layers"):
        run(folder, "too-many", f"controller={controller}")
    assert not (folder / "too-many").exists()


def test_groups_of_layers_may_be_given_their_ratios(folder: Path) -> None:
    found = run(folder, "given", "controller={name: fixed, prune_ratio: [0.25, 0.75]}", "evaluation.baselines=[]")
    assert found.answer is not None
    assert [one.prune_ratio for one in found.answer.by_group] == [0.25, 0.75]
    assert found.prune_ratio == pytest.approx(found.sparsity, abs=0.02)
    for module in found.modules:
        assert module.sparsity_A == pytest.approx(0.25 if module.layer == 0 else 0.75, abs=0.05)


# What is merged ---------------------------------------------------------------------------------------------------------


def test_a_merged_target_lora_that_is_a_baseline_too_is_one_and_the_same(folder: Path) -> None:
    changes = [FIXED, "merge.target=true", "evaluation.baselines=[target_lora, merge_finetune]", "tuning.epochs=1"]
    found = run(folder, "target", *changes)
    told = [(event["system"], event["step"]) for event in lines(folder / "target" / "history.jsonl") if event["kind"] == "step"]
    assert told == [(system, step) for system in ("target_lora", "pomona", "merge_finetune") for step in range(1, 7)]
    assert set(found.tokens) == {"target_lora", "pomona", "merge_finetune"}
    # Two sources of rank 3 and the target's of rank 3 stand side by side where all three have the module.
    assert found.systems["pomona"].rank == 9


def test_trained_merge_weights_and_frozen_sources_land_in_the_record(folder: Path) -> None:
    changes = [FIXED, "merge={frozen: [alpha], weights_learning_rate: 0.05}", "evaluation.baselines=[]", "tuning.epochs=1"]
    found = run(folder, "weights", *changes)
    alpha, written = (read_adapter(folder / place) for place in ("adapters/alpha", "weights/adapter"))
    for module in found.modules:
        assert module.merge_weights is not None
        assert module.merge_weights[0] == (1.0 if module.module in alpha else 0.0)
        assert module.merge_weights[1] != 0.5
        trainable = 3 * written[module.module].in_features  # beta's factor alone
        assert module.sparsity_A == pytest.approx(pruned_count(0.5, trainable) / trainable)
    plain = run(folder, "no-weights", FIXED, "evaluation.baselines=[]", "tuning.epochs=1")
    assert all(module.merge_weights is None for module in plain.modules)


def test_trained_coefficients_land_in_the_record_and_the_report(folder: Path) -> None:
    merge = "merge={target: true, train: coefficients, coefficients: {unit: layer, start: target}}"
    changes = ["controller={name: fixed, prune_ratio: 0}", merge, "evaluation.baselines=[target_recalibrated]", "tuning.epochs=1"]
    found = run(folder, "coefficients", *changes)
    assert set(found.tokens) == {"target_lora", "pomona", "target_recalibrated"}
    layers: dict[int | None, set[tuple[float, ...]]] = {}
    for module in found.modules:
        assert module.merge_weights is not None
        assert module.merge_weights[2] != 1.0
        layers.setdefault(module.layer, set()).add(tuple(module.merge_weights[1:]))
    assert all(len(one) == 1 for one in layers.values())
    main = found.systems["pomona"]
    assert main.trained_parameters == 3 * len(layers)
    assert main.training is not None
    assert (main.training["learning_rate"], main.training["weights_learning_rate"]) == (None, 0.05)
    control = found.systems["target_recalibrated"]
    assert (control.trained_parameters, control.differences) == (len(layers), [])
    assert (found.prune_ratio, found.sparsity) == (0.0, pytest.approx(0.0, abs=0.01))
    told = {row[0].text: row[1].text for row in choices_table(found).rows}
    assert told["Merged by"] == (
        "concat, the adapters side by side, with the target LoRA, "
        "one coefficient for each adapter and layer trained, all factors frozen"
    )


def test_what_pruning_kept_of_each_source_lands_in_the_record_and_the_report(folder: Path) -> None:
    changes = ["pruning.granularity=source_layer", "merge.weights=nan", "merge.target=true"]
    found = run(folder, "sources", FIXED, *changes, "evaluation.baselines=[]", "tuning.epochs=1")
    kept: dict[tuple[int, int | None], set[float]] = {}
    for module in found.modules:
        assert module.kept_by_source is not None
        assert len(module.kept_by_source) == 3
        for place, share in enumerate(module.kept_by_source):
            if share is not None:
                kept.setdefault((place, module.layer), set()).add(share)
    # Each adapter's part in a layer goes or stays, and half of these parts go.
    assert all(len(shares) == 1 for shares in kept.values())
    assert sum(shares == {0.0} for shares in kept.values()) == pruned_count(0.5, len(kept))
    assert {1.0, 0.0} == set().union(*kept.values())
    sources = [read_adapter(folder / f"adapters/{source.name}") for source in found.sources]
    norms = [float(torch.cat([one.delta(module).flatten() for module in one]).norm()) for one in sources]
    mean = 2 / sum(1 / norm for norm in norms)
    assert [one.weight for one in found.sources] == pytest.approx([mean / norms[0], 0.5 * mean / norms[1]], rel=1e-4)
    told = {row[0].text: row[1].text for row in choices_table(found).rows}
    assert told["Unit of pruning"] == "each source's part in a layer"
    assert told["Merged by"].endswith("with the target LoRA, weighted inversely to the norms of the updates")
    page = write_report(folder / "sources").read_text(encoding="utf-8")
    assert "What was kept of each source" in page
    assert "target LoRA" in page


def test_the_command_checks_what_is_trained_and_a_stage_without_a_step_is_found_first(folder: Path) -> None:
    for train, controller, code, part in (
        ({"coefficients": 0.01, "factors": 0.99}, "bayes", 2, "merge.train: a run of 18 optimizer steps leaves the stage coef"),
        (
            "coefficients",
            "bayes",
            2,
            "controller: prunes factors, and all factors are frozen (got 'Bayes')",
        ),
        (["coefficients", "factors"], "bayes", 0, "ok: "),
        ("coefficients", {"name": "fixed", "prune_ratio": 0}, 0, "ok: "),
    ):
        write_recipe(folder / "trained.yaml", recipe(merge={"target": True, "train": train}, controller=controller))
        outcome = call(folder, "check", "trained.yaml")
        assert outcome.code == code
        assert part in outcome.out + outcome.err


def test_rank_pruning_writes_a_smaller_adapter(folder: Path) -> None:
    changes = ["pruning.granularity=rank", "evaluation.baselines=[]", "tuning.epochs=1"]
    found = run(folder, "ranks", FIXED, *changes)
    run(folder, "all-ranks", "controller={name: fixed, prune_ratio: 0}", *changes)
    written = read_adapter(folder / "ranks" / "adapter")
    # floor(0.5 * 6) of the components of two sources go, floor(0.5 * 3) where only one has the module.
    assert found.systems["pomona"].rank == max(written[module].rank for module in written) == 3
    assert len(adapter_bytes(folder / "ranks")) < 0.6 * len(adapter_bytes(folder / "all-ranks"))
    assert found.sparsity == pytest.approx(sum(pruned_entries(found)) / entries(found), abs=1e-9)


def entries(record: RunRecord) -> int:
    return sum(3 * (2 if one.projection in ("q_proj", "v_proj") else 1) * sum(SHAPES[one.projection]) for one in record.modules)


def pruned_entries(record: RunRecord) -> list[int]:
    return [(3 if one.projection in ("q_proj", "v_proj") else 1) * sum(SHAPES[one.projection]) for one in record.modules]


SHAPES = {"q_proj": (32, 32), "v_proj": (16, 32), "down_proj": (32, 48)}
"""Of the tiny model's modules, (O, I)."""
