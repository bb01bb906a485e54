"""One command run by two processes, as `torchrun` and `accelerate launch` start them, against the same command in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from tests.end_to_end.setting import Outcome, call, make_setting, recipe, write_recipe
from tests.end_to_end.together import together
from torch.distributed.tensor import DTensor

import pomona.api.adapt as api_module
import pomona.tuning.loop as loop_module
from pomona.tuning.transform import Run

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="autograd refuses a fork where an accelerator is at work")

TUNING = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "dropout": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("processes"))
    run = recipe(name="run", tuning=TUNING, select_by="chrf", evaluation={"baselines": ["zero_shot", "svd"], "draws": 200})
    write_recipe(folder / "run.yaml", run)
    write_recipe(folder / "small.yaml", recipe(tuning=TUNING | {"epochs": 1}, evaluation={"baselines": [], "draws": 200}))
    fixed = {"name": "fixed", "prune_ratio": 0.3}
    systems = {"fails": {"controller": fixed, "tuning.learning_rate": 0.02}, "p30": {"controller": fixed}}
    content = {"name": "exp", "recipe": "small.yaml", "seeds": [0], "systems": systems}
    write_recipe(folder / "exp.yaml", content)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_same_adapter(one: Path, other: Path) -> None:
    mine, theirs = (load_file(path / "adapter_model.safetensors") for path in (one, other))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=0)
        assert torch.equal(tensor == 0, theirs[name] == 0)


def check_same_run(one: Path, other: Path) -> None:
    """Two run folders of the same recipe: losses, masks, ratio, adapter, answers."""
    check_same_adapter(one / "adapter", other / "adapter")
    records = [json.loads((path / "record.json").read_text()) for path in (one, other)]
    for key in ("status", "prune_ratio", "sparsity", "splits", "tokens"):
        assert records[0][key] == records[1][key]
    assert records[0]["status"] == "done"
    events = [lines(path / "history.jsonl") for path in (one, other)]
    assert [event["kind"] for event in events[0]] == [event["kind"] for event in events[1]]
    for key in ("loss", "dev_loss", "dev_score", "prune_ratio"):
        mine, theirs = ([event[key] for event in found if key in event] for found in events)
        assert mine == pytest.approx(theirs, abs=1e-4 if key == "dev_score" else 1e-5)
    for mine, theirs in zip(lines(one / "predictions.jsonl"), lines(other / "predictions.jsonl"), strict=True):
        assert mine["predictions"] == theirs["predictions"]
        for system, loss in mine["losses"].items():
            assert loss == pytest.approx(theirs["losses"][system], abs=1e-5)


@pytest.fixture(scope="module")
def alone(folder: Path) -> Outcome:
    outcome = call(folder, "adapt", "run.yaml", "-o", "one")
    assert outcome.code == 0, outcome.err
    return outcome


def track(file: Path) -> None:
    """Let a tracker write the kinds of the events that it hears into a file."""

    class Tracker:
        def on_event(self, event: Any) -> None:
            with file.open("a") as heard:
                heard.write(f"{event['kind']}\n")

    api_module.trackers = lambda names: [Tracker()]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def both(folder: Path, alone: Outcome) -> list[Outcome]:
    outcomes = together(folder, "adapt", "run.yaml", "-o", "two", before=lambda rank: track(folder / f"heard-by-{rank}"))
    assert [one.code for one in outcomes] == [0, 0], outcomes
    return outcomes


def test_a_run_of_two_processes_is_that_of_one(folder: Path, both: list[Outcome]) -> None:
    check_same_run(folder / "one", folder / "two")


def test_one_process_writes_and_speaks(folder: Path, alone: Outcome, both: list[Outcome]) -> None:
    files = [sorted(str(file.relative_to(folder / run)) for file in (folder / run).rglob("*")) for run in ("one", "two")]
    assert files[0] == files[1]
    assert "report.html" in files[1]
    assert both[0].out == alone.out.replace("one/", "two/")
    assert (both[1].out, both[1].err) == ("", "")
    heard = (folder / "heard-by-0").read_text().split()
    assert [heard.count(kind) for kind in ("begin", "step", "report", "end")] == [1, 12, 1, 1]
    assert not (folder / "heard-by-1").exists()
    assert both[0].err.count("tuning pomona:") == 1
    assert [json.loads((folder / run / "record.json").read_text())["environment"]["processes"] for run in ("one", "two")] == [1, 2]


def stop(step: int, *, sent: type[BaseException], ranks: tuple[int, ...] = (0, 1)) -> Any:
    """A `before` that fails in a step of the training loop, on some ranks."""

    def before(rank: int) -> None:
        take, taken = loop_module._step, []

        def step_or_fail(*arguments: Any) -> Any:
            taken.append(0)
            if len(taken) == step and rank in ranks:
                raise sent("boom")
            return take(*arguments)

        loop_module._step = step_or_fail

    return before


def test_a_run_of_two_processes_is_resumed_in_one_and_the_reverse(folder: Path) -> None:
    every_step = ("--set", "tuning.checkpoint_steps=1")
    whole = call(folder, "adapt", "small.yaml", "-o", "whole", *every_step)
    assert whole.code == 0, whole.err
    arguments = ("adapt", "small.yaml", "-o", "begun by two", *every_step)
    outcomes = together(folder, *arguments, before=stop(5, sent=KeyboardInterrupt))
    assert [one.code for one in outcomes] == [130, 130]
    said = [line for one in outcomes for line in one.err.splitlines() if line.startswith("interrupted")]
    assert said == ["interrupted; go on with: pomona adapt small.yaml -o 'begun by two' --set tuning.checkpoint_steps=1 --resume"]
    assert call(folder, *arguments, "--resume").code == 0
    check_same_run(folder / "whole", folder / "begun by two")

    arguments = ("adapt", "small.yaml", "-o", "begun by one", *every_step)
    with mock.patch.object(loop_module, "_step", loop_module._step):
        stop(5, sent=KeyboardInterrupt)(0)
        assert call(folder, *arguments).code == 130
    assert [one.code for one in together(folder, *arguments, "--resume")] == [0, 0]
    check_same_run(folder / "whole", folder / "begun by one")


def test_bad_input_is_reported_once_and_nothing_is_written(folder: Path) -> None:
    outcomes = together(folder, "adapt", "small.yaml", "-o", "bad", "--set", "tuning.epochs=-1")
    assert [one.code for one in outcomes] == [2, 2]
    assert [line.split(" (")[0] for one in outcomes for line in one.err.splitlines()] == [
        "error: small.yaml: tuning.epochs: must be at least 1"
    ]
    outcomes = together(folder, "adapt", "nowhere.yaml", "--no-such-option")
    assert [one.code for one in outcomes] == [2, 2]
    assert len("".join(one.err for one in outcomes).splitlines()) == 1
    outcomes = together(folder, "adapt", "small.yaml", "-o", "adapters")
    assert [one.code for one in outcomes] == [2, 2]
    assert sum(len(one.errors) for one in outcomes) == 1
    assert not (folder / "bad").exists()


def test_a_failure_of_one_process_ends_both_with_its_reason(folder: Path) -> None:
    outcomes = together(folder, "adapt", "small.yaml", "-o", "failed", before=stop(3, sent=RuntimeError, ranks=(1,)))
    assert [one.code for one in outcomes] == [1, 1]
    assert [line for one in outcomes for line in one.errors] == ["error: RuntimeError: boom (--debug shows where)"]
    record = json.loads((folder / "failed" / "record.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "in another process: error: RuntimeError: boom (--debug shows where)")


def test_a_cell_that_fails_in_both_processes_leaves_the_others_to_run(folder: Path) -> None:
    outcomes = together(folder, "experiment", "exp.yaml", "-o", "exp", before=stop(2, sent=ArithmeticError))
    assert [one.code for one in outcomes] == [1, 1]
    assert [line for one in outcomes for line in one.errors] == ["error: 1 of 2 cells failed: fails-0"]
    assert outcomes[0].out.splitlines()[-1] == "report   exp/report.html"
    assert outcomes[1].out == ""
    states = {path.parent.name: json.loads(path.read_text())["status"] for path in (folder / "exp").glob("*/record.json")}
    assert states == {"fails-0": "failed", "p30-0": "done"}


def test_train_adapter_and_evaluate(folder: Path) -> None:
    assert call(folder, "train-adapter", "source.yaml", "-o", "source-one", "--set", "tuning.dropout=0").code == 0
    outcomes = together(folder, "train-adapter", "source.yaml", "-o", "source-two", "--set", "tuning.dropout=0")
    assert [(one.code, one.out) for one in outcomes] == [(0, "4 modules, in source-two\n"), (0, "")]
    check_same_adapter(folder / "source-one", folder / "source-two")
    # Sampled answers have draws of their own, whichever process gives them.
    arguments = ("evaluate", "small.yaml", "-a", "adapters/alpha", "--decode", "temperature=0.8", "--json", "--output")
    first = call(folder, *arguments, "said-one.jsonl")
    outcomes = together(folder, *arguments, "said-two.jsonl")
    assert [one.code for one in outcomes] == [0, 0]
    assert [line["predictions"] for line in lines(folder / "said-one.jsonl")] == [
        line["predictions"] for line in lines(folder / "said-two.jsonl")
    ]
    mine, theirs = json.loads(first.out)["metrics"], json.loads(outcomes[0].out)["metrics"]
    for system, found in mine.items():
        for metric, one in found.items():
            assert one["value"] == pytest.approx(theirs[system][metric]["value"], abs=1e-5)


def test_work_that_is_not_shared_is_done_by_the_first_process(folder: Path) -> None:
    outcomes = together(folder, "list", "--json")
    assert [one.code for one in outcomes] == [0, 0]
    assert json.loads(outcomes[0].out)
    assert outcomes[1].out == ""


def test_a_launcher_that_says_too_little(folder: Path) -> None:
    outcome = together(folder, "adapt", "small.yaml", variables=[{"WORLD_SIZE": "2"}])[0]
    assert outcome.code == 2
    assert outcome.err.startswith("error: RANK: WORLD_SIZE is 2, but this variable is not set. Start the processes with torchrun")
    outcome = together(
        folder, "adapt", "small.yaml", variables=[{"WORLD_SIZE": "2", "RANK": "-1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}]
    )[0]
    assert outcome.code == 2
    assert outcome.err == "error: RANK: a whole number is expected in this environment variable (got '-1')\n"


def hold_half(rank: int) -> None:
    """A `before` that looks at the frozen weights in every step."""
    take = loop_module._step

    def step(run: Run, *rest: Any) -> Any:
        for layer in run.attachment.layers.values():
            weight = layer.base.weight
            assert isinstance(weight, DTensor)
            assert 2 * weight.to_local().numel() == weight.numel()
        return take(run, *rest)

    loop_module._step = step  # pyright: ignore[reportAttributeAccessIssue]


def test_a_model_that_is_sharded_over_two_processes_trains_as_in_one(folder: Path) -> None:
    """The layers' weights are halved, the factors are whole; of 9 examples in batches of 4 one is left to rank 0 alone."""
    given = {"splits.train": 9, "pruning.activations": "full_pass", "tuning.gradient_checkpointing": True}
    changes = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    assert call(folder, "adapt", "small.yaml", "-o", "whole model", *changes).code == 0
    more = {"ACCELERATE_USE_FSDP": "true"}
    outcomes = together(folder, "adapt", "small.yaml", "-o", "sharded", *changes, more=more, before=hold_half)
    assert [one.code for one in outcomes] == [0, 0], outcomes
    check_same_run(folder / "whole model", folder / "sharded")
