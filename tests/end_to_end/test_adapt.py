"""The main job from the front door to the end, on a tiny model: as a process, and again within this one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from tests.end_to_end.setting import (
    Outcome,
    adapter_bytes,
    call,
    comparable,
    inside,
    lines,
    make_setting,
    process,
    quota,
    recipe,
    write_recipe,
)
from tests.tiny import texts_of, tiny_adapter, tiny_backbone
from torch import Tensor

import pomona
from pomona.adapters import Adapter, read_adapter, write_adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import encode
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone, load_backbone
from pomona.data import Example
from pomona.pruning import pruned_count
from pomona.runs.adapt import adapt
from pomona.runs.examples import read_splits
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe, TrainRecipe
from pomona.runs.record import RunRecord
from pomona.runs.train_adapter import train_adapter
from pomona.seeding import derive_seed

BASELINES = ["zero_shot", "target_lora", "concat", "linear", "svd", "merge_finetune", "lorahub"]
SYSTEMS = [*BASELINES, "pomona"]
METRICS = {"rouge_l", "rouge_1", "rouge_2", "bleu", "chrf", "loss"}
# gamma is the adapter that a process trains; beta adapts a module that gamma does not, and weighs more towards the top.
WEIGHT = [{"filter": "q_proj", "value": [0.25, 0.75]}, {"value": 0.5}]
SOURCES = [{"name": "gamma", "adapter": "adapters/gamma"}, {"name": "beta", "adapter": "adapters/beta", "weight": WEIGHT}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("adapt"))
    write_recipe(folder / "run.yaml", recipe(name="run", sources=SOURCES, evaluation={"draws": 200, "baselines": BASELINES}))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Outcome:
    return process(folder, "train-adapter", "source.yaml", "--output", "adapters/gamma")


@pytest.fixture(scope="module")
def outcome(folder: Path, trained: Outcome) -> Outcome:
    return process(folder, "adapt", "run.yaml", "--output", "first")


@pytest.fixture(scope="module")
def run(folder: Path, outcome: Outcome) -> Path:
    assert outcome.code == 0, outcome.err
    return folder / "first"


@pytest.fixture(scope="module")
def record(run: Path) -> RunRecord:
    return RunRecord.model_validate_json((run / "record.json").read_text())


@pytest.fixture(scope="module")
def adapter(run: Path) -> Adapter:
    return read_adapter(run / "adapter")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return load_backbone(str(folder / "model"))


@pytest.fixture(scope="module")
def test_split(folder: Path) -> tuple[Example, ...]:
    with inside(folder):
        return read_splits(read_recipe("run.yaml", Recipe)).test


def test_train_adapter_as_a_process(folder: Path, trained: Outcome) -> None:
    assert trained.code == 0, trained.err
    gamma = read_adapter(folder / "adapters" / "gamma")
    assert trained.out == f"{len(gamma)} modules, in adapters/gamma\n"
    assert [module.rpartition(".")[2] for module in gamma] == ["q_proj", "v_proj"] * 2
    assert {gamma[module].rank for module in gamma} == {3}
    # B starts at zero, so whatever is in it was learned.
    assert all(float(gamma[module].B.abs().max()) > 0 for module in gamma)


def test_the_command_prints_the_result(run: Path, outcome: Outcome, record: RunRecord) -> None:
    told = outcome.out.splitlines()
    assert told[-3:] == ["adapter  first/adapter", "record   first/record.json", "report   first/report.html"]
    for system in SYSTEMS:
        label = record.systems[system].label
        assert any(line.startswith(f"  {label} ") and "rouge_l" in line and "loss" in line for line in told), label
    assert not outcome.errors
    assert "Warning" not in outcome.err


def test_the_run_folder_holds_what_the_design_says_and_no_more(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml", "record.json", "history.jsonl", "predictions.jsonl", "adapter", "report.html"
    }  # fmt: skip
    assert {path.name for path in (run / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "pomona.json", "README.md"
    }  # fmt: skip
    page = (run / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "Target LoRA" in page


def test_the_resolved_recipe_is_the_recipe(folder: Path, run: Path, record: RunRecord) -> None:
    given = read_recipe(folder / "run.yaml", Recipe)
    assert read_recipe(run / "recipe.yaml", Recipe) == given
    assert record.recipe == given.resolved() == yaml.safe_load((run / "recipe.yaml").read_text())


def test_the_record_is_complete(record: RunRecord, folder: Path) -> None:
    assert record.status == "done"
    assert record.error is None
    assert (record.name, record.model, record.task, record.primary_metric) == ("run", "model", "Summarization", "rouge_l")
    assert list(record.systems) == list(record.metrics) == SYSTEMS
    assert all(set(scores) == METRICS for scores in record.metrics.values())
    for scores in record.metrics.values():
        for name, one in scores.items():
            assert one.n == 6
            assert one.low <= one.high
            assert 0 <= one.value <= (100 if name != "loss" else 20)
    against = [(one.system, one.baseline) for one in record.comparisons if one.metric == "loss"]
    assert [pair for pair in against if pair[0] == "pomona"] == [("pomona", baseline) for baseline in BASELINES]
    for one in record.comparisons:
        ours, theirs = record.metrics[one.system][one.metric].value, record.metrics[one.baseline][one.metric].value
        assert one.difference == pytest.approx(ours - theirs, abs=1e-9)
    assert {name: part.examples for name, part in record.splits.items()} == {"train": 24, "micro_dev": 6, "dev": 4, "test": 6}
    assert len({part.fingerprint for part in record.splits.values()}) == 4
    assert set(record.fingerprints) == {
        "recipe", "model", "model's config", "model's tokenizer", "model's generation config", "adapter",
    }  # fmt: skip
    for source, given in zip(record.sources, SOURCES, strict=True):
        origin = str(given["adapter"])
        assert (source.name, source.origin, source.weight) == (given["name"], origin, given.get("weight", 1.0))
        assert source.fingerprint == read_adapter(folder / origin).fingerprint()
    assert set(record.tokens) == {"pomona", "target_lora", "merge_finetune", "lorahub"}
    assert record.tokens["lorahub"] * 3 == record.tokens["target_lora"] * 40  # three epochs, forty losses
    assert (record.systems["lorahub"].train_seconds or 0) > 0
    assert record.metrics["lorahub"]["loss"].value < record.metrics["zero_shot"]["loss"].value
    assert record.timing.total_seconds > record.timing.train_seconds > 0


def test_the_ratio_was_learned_in_rounds(record: RunRecord) -> None:
    # 24 examples in batches of 4, three epochs: 18 steps; the search is over after floor(0.6 * 18) = 10.
    assert [one.step for one in record.rounds] == [3, 6, 9]
    assert [one.index for one in record.rounds] == [0, 1, 2]
    assert all(len(one.candidates) == 3 for one in record.rounds)
    for before, after in zip(record.rounds, record.rounds[1:], strict=False):
        assert after.prune_ratio_before == before.prune_ratio_after
    assert record.answer is not None
    assert record.prune_ratio == record.answer.prune_ratio
    assert record.answer.low <= record.answer.prune_ratio <= record.answer.high
    assert record.answer.flat
    assert any("show no significant difference between the prune ratios" in warning for warning in record.warnings)


def test_every_factor_has_exactly_the_ratio_s_zeros(adapter: Adapter, folder: Path, record: RunRecord) -> None:
    gamma, beta = (read_adapter(folder / "adapters" / name) for name in ("gamma", "beta"))
    assert record.prune_ratio is not None
    assert set(adapter) == set(gamma) | set(beta)
    assert record.prune_ratio > 0
    total = zeros = 0
    for module in adapter:
        # The export pads every module to one rank; what was trained is the sources' columns side by side.
        ranks = [one[module].rank for one in (gamma, beta) if module in one]
        rank = sum(ranks)
        described = next(one for one in record.modules if one.module == module)
        for matrix, sparsity in (
            (adapter[module].A[:rank], described.sparsity_A),
            (adapter[module].B[:, :rank], described.sparsity_B),
        ):
            expected = quota(record.prune_ratio, matrix.numel(), ranks)
            assert int((matrix == 0).sum()) == expected, module
            assert sparsity == pytest.approx(expected / matrix.numel(), abs=1e-7)
            total, zeros = total + matrix.numel(), zeros + int((matrix == 0).sum())
        assert not adapter[module].A[rank:].any()
        assert not adapter[module].B[:, rank:].any()
    assert record.sparsity == pytest.approx(zeros / total, abs=1e-12)


def test_zeros_and_padding_are_those_that_inspect_shows(run: Path, record: RunRecord) -> None:
    shown = json.loads(call(run, "inspect", "adapter", "--json").out)["total"]
    main = record.systems["pomona"]
    assert (main.stored_parameters, main.padding, main.zeros) == (shown["parameters"], shown["padding"], shown["sparsity"])
    assert shown["padding"] > 0
    assert shown["sparsity"] == pytest.approx(record.sparsity, abs=1e-12)
    assert main.trained_parameters == shown["parameters"] - shown["padding"]


def test_a_smaller_target_lora_of_the_recipe_is_reported_everywhere(run: Path, outcome: Outcome, record: RunRecord) -> None:
    target, main = record.systems["target_lora"], record.systems["pomona"]
    # gamma and beta have rank 3 on q and v, beta rank 3 on down too; the recipe gives rank 3.
    assert target.adapted == main.adapted == {"q_proj": 2, "v_proj": 2, "down_proj": 2}
    assert target.trained_parameters == 3 * 2 * (64 + 48 + 80)
    assert main.trained_parameters == 2 * (6 * (64 + 48) + 3 * 80)
    assert target.training == main.training
    assert main.training is not None
    assert (main.training["epochs"], main.training["learning_rate"], main.training["runs"]) == (3, 0.01, 1)
    assert target.differences == ["it trains 1.2 k parameters, Pomona 1.8 k"]
    assert record.systems["merge_finetune"].differences == main.differences == []
    (warned,) = [one for one in record.warnings if one.startswith("Target LoRA is not trained like Pomona")]
    assert warned.endswith("(the recipe gives lora.rank; left out, they follow Pomona)")
    assert "Target LoRA (trained differently: it trains 1.2 k parameters, Pomona 1.8 k)" in outcome.out
    assert any(
        line.startswith("  Target LoRA ") and ", rank 3, 1.2 k trained, 1.2 k stored, rate 0.01" in line
        for line in outcome.out.splitlines()
    )


def test_the_history_tells_every_step_epoch_and_round(run: Path, record: RunRecord) -> None:
    history = lines(run / "history.jsonl")
    for system in ("pomona", "target_lora", "merge_finetune"):
        own = [event for event in history if event["system"] == system]
        assert [event["step"] for event in own if event["kind"] == "step"] == list(range(1, 19))
        # The first epoch lies within the search, so it is looked at again when the ratio is settled.
        expected = [1, 1, 2, 3] if system == "pomona" else [1, 2, 3]
        assert [event["epoch"] for event in own if event["kind"] == "epoch"] == expected
        assert all(math.isfinite(event["loss"]) for event in own if event["kind"] == "step")
    rounds = [event for event in history if event["kind"] == "round"]
    assert [event["prune_ratio_after"] for event in rounds] == [one.prune_ratio_after for one in record.rounds]
    steps = [event for event in history if event["kind"] == "step" and event["system"] == "pomona"]
    assert {event["prune_ratio"] for event in steps[10:]} == {record.prune_ratio}


def test_predictions_of_every_row_and_system(run: Path, test_split: tuple[Example, ...]) -> None:
    predictions = lines(run / "predictions.jsonl")
    assert [line["id"] for line in predictions] == [example.id for example in test_split]
    for line, example in zip(predictions, test_split, strict=True):
        assert line["document"] == example.document
        assert line["references"] == list(example.references)
        assert list(line["predictions"]) == SYSTEMS


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_alone_gives_the_logits_and_text_of_pomona(
    run: Path, adapter: Adapter, backbone: Backbone, test_split: tuple[Example, ...]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(run.parent / "model", dtype=torch.float32), run / "adapter"
    ).eval()
    encoded, _ = encode(test_split, backbone.tokenizer, 512)
    tokens = [torch.tensor([example.tokens]) for example in encoded]
    with torch.no_grad(), attached(backbone, [adapter]):
        ours = [logits(backbone.model, one) for one in tokens]
    bare = [logits(backbone.model, one) for one in tokens]
    with torch.no_grad():
        theirs = [logits(network, one) for one in tokens]
    for mine, other, base in zip(ours, theirs, bare, strict=True):
        assert torch.allclose(mine, other, atol=1e-4, rtol=0)
        assert not torch.allclose(mine, base, atol=1e-2, rtol=0)
    # Greedy, prompt by prompt and without padding: PEFT's text is what the run wrote down.
    said = {line["id"]: line["predictions"]["pomona"] for line in lines(run / "predictions.jsonl")}
    for example in test_split:
        prompt = backbone.tokenizer(example.prompt, return_tensors="pt")
        output = network.generate(**prompt, max_new_tokens=6, do_sample=False, pad_token_id=0)
        text = str(backbone.tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
        answer = next((line.strip() for line in text.splitlines() if line.strip()), "")
        assert said[example.id] == answer
    with attached(backbone, [adapter]) as attachment, attachment.folded():
        folded = texts_of(generate(backbone, [example.prompt for example in test_split], max_new_tokens=6, batch_size=2))
    assert [next((line.strip() for line in text.splitlines() if line.strip()), "") for text in folded] == list(said.values())


@torch.no_grad()
def logits(network: Any, tokens: Tensor) -> Tensor:
    return network(input_ids=tokens).logits


def test_a_second_run_is_bit_identical(folder: Path, run: Path) -> None:
    with inside(folder):
        again = pomona.adapt(pomona.read_recipe("run.yaml", Recipe), "second")
    assert adapter_bytes(folder / "second") == adapter_bytes(run)
    assert comparable(folder / "second") == comparable(run)
    for name in ("history.jsonl", "predictions.jsonl", "recipe.yaml"):
        assert (folder / "second" / name).read_bytes() == (run / name).read_bytes(), name
    assert json.loads((folder / "second" / "record.json").read_text()) == again.model_dump(mode="json")


def test_another_seed_is_another_run(folder: Path, run: Path, record: RunRecord) -> None:
    with inside(folder):
        other = adapt(read_recipe("run.yaml", Recipe, ["seed=1"]), "other-seed")
    assert adapter_bytes(folder / "other-seed") != adapter_bytes(run)
    assert other.splits["test"].fingerprint != record.splits["test"].fingerprint
    assert [one.candidates for one in other.rounds] != [one.candidates for one in record.rounds]


def test_resume_of_a_done_run_returns_at_once(folder: Path, run: Path, record: RunRecord) -> None:
    before = {name: (run / name).read_bytes() for name in ("record.json", "history.jsonl", "predictions.jsonl")}
    with mock.patch("pomona.runs.shared_work.load_backbone", side_effect=AssertionError("the model was loaded")):
        done = call(folder, "adapt", "run.yaml", "--output", "first", "--resume", "--json")
    assert done.code == 0, done.err
    assert RunRecord.model_validate_json(done.out) == record
    assert {name: (run / name).read_bytes() for name in before} == before


def test_two_passes_train_again_under_the_ratio_of_the_first(folder: Path, trained: Outcome) -> None:
    changes = ["controller.mode=two_pass", "evaluation.baselines=[zero_shot]"]
    with inside(folder):
        done = adapt(read_recipe("run.yaml", Recipe, changes), "two-pass")
    history = lines(folder / "two-pass" / "history.jsonl")
    kinds = [(event["system"], event["kind"]) for event in history]
    assert kinds.count(("pomona_search", "round")) == 6 == len(done.rounds)
    assert ("pomona", "round") not in kinds
    assert kinds.count(("pomona", "step")) == 18 == kinds.count(("pomona_search", "step"))
    assert kinds.index(("pomona", "step")) > max(place for place, kind in enumerate(kinds) if kind[0] == "pomona_search")
    assert done.answer is not None
    assert done.prune_ratio == done.answer.prune_ratio
    second = [event for event in history if event["system"] == "pomona" and event["kind"] == "step"]
    assert {event["prune_ratio"] for event in second} == {done.prune_ratio}
    assert list(done.metrics) == ["zero_shot", "pomona"]
    # The table's cost is that of both passes.
    assert done.systems["pomona"].train_seconds == pytest.approx(done.timing.train_seconds + done.timing.probe_seconds)
    written = read_adapter(folder / "two-pass" / "adapter")
    assert done.prune_ratio is not None
    module = "model.layers.0.self_attn.q_proj"
    assert int((written[module].A == 0).sum()) == quota(done.prune_ratio, written[module].A.numel(), (3, 3))


@pytest.mark.parametrize("method", ["svd", "linear"])
def test_a_static_merge_can_be_trained(folder: Path, trained: Outcome, method: str) -> None:
    changes = [f"merge.method={method}", "controller={name: fixed, prune_ratio: 0.25}", "evaluation.baselines=[]"]
    with inside(folder):
        done = adapt(read_recipe("run.yaml", Recipe, changes), f"static-{method}")
    written = read_adapter(folder / f"static-{method}" / "adapter")
    assert done.prune_ratio == 0.25
    assert done.rounds == []
    for module in written:
        for matrix in (written[module].A, written[module].B):
            assert int((matrix == 0).sum()) >= pruned_count(0.25, matrix.numel())


def test_a_baseline_that_cannot_merge_the_sources_is_left_out_with_the_reason(folder: Path, trained: Outcome) -> None:
    write_adapter(tiny_adapter(tiny_backbone(), seed=5, rank=2), folder / "adapters" / "narrow")
    sources = [{"name": name, "adapter": f"adapters/{name}"} for name in ("alpha", "narrow")]
    changes = ["tuning.epochs=1", "evaluation.baselines=[linear, svd]", "controller={name: fixed, prune_ratio: 0.5}"]
    write_recipe(folder / "uneven.yaml", recipe(sources=sources))
    with inside(folder):
        done = adapt(read_recipe("uneven.yaml", Recipe, changes), "uneven")
    assert done.status == "done"
    assert list(done.metrics) == list(done.systems) == ["svd", "pomona"]
    assert done.systems["svd"].rank == 3
    assert [warning for warning in done.warnings if warning.startswith("the baseline linear is left out: ")]


def test_sources_are_trained_once_and_kept(folder: Path, trained: Outcome) -> None:
    """A source given as data is what `train-adapter` makes of it with the source's own stream, and the second run finds it."""
    tuning = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01}
    sources = [{"name": "gamma", "data": {"train": "source.jsonl"}, "tuning": tuning}]
    write_recipe(folder / "trains.yaml", recipe(sources=sources, task="summarization"))
    changes = ["tuning.epochs=1", "evaluation.baselines=[]", "task.max_new_tokens=1"]
    with inside(folder):
        read = read_recipe("trains.yaml", Recipe, changes)
        first = adapt(read, "trains-1")
        with mock.patch("pomona.runs.sources.train_plain", side_effect=AssertionError("trained again")):
            second = adapt(read, "trains-2")
        own_stream = f"seed={derive_seed(0, 'source', 'gamma')}"
        alone = train_adapter(read_recipe("source.yaml", TrainRecipe, [own_stream]), "alone")
    assert first.sources == second.sources
    assert first.sources[0].origin == "trained on 12 examples: source.jsonl"
    assert first.sources[0].fingerprint == alone.fingerprint()
    shutil.rmtree(folder / "trains-2")
