"""A run that is killed, anywhere, goes on with `--resume` and ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.crash.warm import Warm
from tests.end_to_end.setting import (
    adapter_bytes,
    call,
    comparable,
    inside,
    make_setting,
    process,
    recipe,
    rows,
    write_recipe,
    write_rows,
)

from pomona.errors import InputError
from pomona.runs.adapt import adapt
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe

CHANGES: dict[str, Any] = {
    "name": "long",
    "tuning": {"epochs": 5, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1},
    "controller": {"name": "grasp", "interval_steps": 4},
    "evaluation": {"baselines": ["zero_shot", "target_lora", "svd"], "draws": 200, "batch_size": 1},
    "task": {"name": "summarization", "max_new_tokens": 24},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("crash"))
    write_recipe(folder / "long.yaml", recipe(**CHANGES))
    write_recipe(folder / "short.yaml", recipe(name="short", **{key: CHANGES[key] for key in ("evaluation",)}))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run of the long recipe that nobody disturbs."""
    with inside(folder):
        adapt(read_recipe("long.yaml", Recipe), "whole")
    return folder / "whole"


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    """A run of the short recipe that nobody disturbs."""
    with inside(folder):
        adapt(read_recipe("short.yaml", Recipe), "short")
    return folder / "short"


def assert_same_run(run: Path, reference: Path) -> None:
    assert adapter_bytes(run) == adapter_bytes(reference)
    assert comparable(run) == comparable(reference)
    for name in ("history.jsonl", "predictions.jsonl", "recipe.yaml"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    left = {path.name for path in run.iterdir()} - {"report.html"}
    assert left == {"recipe.yaml", "record.json", "history.jsonl", "predictions.jsonl", "adapter"}


def stop_when(running: Warm, reached: Callable[[], bool], sent: signal.Signals) -> str:
    """Send the signal as soon as the run folder shows that the moment has come; what the process had said by then."""
    try:
        deadline = time.monotonic() + 120
        while not reached():
            assert running.returncode is None, running.ended(timeout=0)
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.stop(sent)
        return running.ended(timeout=60)
    finally:
        running.stop(signal.SIGKILL)


def status(run: Path) -> str:
    return json.loads((run / "record.json").read_text())["status"]


def test_killed_in_three_places_and_interrupted_in_one(folder: Path, whole: Path) -> None:
    """One run, four processes: each resumes what the one before left, the last one from a cold start."""
    run, kept = folder / "hurt", folder / "hurt" / "checkpoint"
    command = ("adapt", "long.yaml", "--output", "hurt")

    running = Warm(folder, *command)
    stop_when(running, (kept / "pomona.safetensors").exists, signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert status(run) == "running"
    assert not (kept / "pomona" / "fitted.json").exists()
    assert not (run / "adapter").exists()

    running = Warm(folder, *command, "--resume")
    said = stop_when(running, (kept / "target_lora.safetensors").exists, signal.SIGINT)
    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "interrupted; go on with: pomona adapt long.yaml --output hurt --resume"
    assert status(run) == "interrupted"
    assert (kept / "pomona" / "fitted.json").exists()
    assert not (kept / "target_lora" / "fitted.json").exists()

    running = Warm(folder, *command, "--resume")
    stop_when(running, (kept / "zero_shot.answers.json").exists, signal.SIGKILL)
    assert status(run) == "running"
    assert not (kept / "pomona.answers.json").exists()
    assert not (run / "predictions.jsonl").exists()

    done = process(folder, *command, "--resume")
    assert done.code == 0, done.err
    assert_same_run(run, whole)
    assert (run / "report.html").exists()
    # What had been done was not done again: no process but the first two tuned, none but the last two evaluated.
    assert "tuning" not in done.err
    assert "evaluating Zero shot" not in done.err


class Interrupts:
    """A progress display that interrupts the run at its `at`-th call."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.stage = ""

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def begin(self, stage: str, total: int) -> None:
        self.stage = stage
        self._count()

    def advance(self, done: int, note: str = "") -> None:
        self._count()

    def end(self, note: str = "") -> None:
        self._count()

    def ratio(self, prune_ratio: float) -> None:
        self._count()

    def warn(self, warning: str) -> None:
        """A warning comes in the midst of something else."""


def test_interrupted_again_and_again_at_every_stage(folder: Path, short: Path) -> None:
    """Interrupted at the fourteenth thing that it reports, each time, the run still ends as the one that was left alone."""
    stages: set[str] = set()
    with inside(folder):
        read = read_recipe("short.yaml", Recipe)
        for _ in range(30):
            progress = Interrupts(at=14)
            try:
                adapt(read, "often", resume=(folder / "often").exists(), progress=progress)
                break
            except KeyboardInterrupt:
                stages.add(progress.stage)
                assert status(folder / "often") == "interrupted"
    assert {"tuning pomona", "tuning target_lora", "evaluating Pomona"} <= stages
    assert_same_run(folder / "often", short)


@pytest.mark.parametrize("point", ["write_predictions", "write_adapter", "drop_checkpoints"])
def test_killed_while_the_results_are_written(folder: Path, short: Path, point: str) -> None:
    run = folder / f"end-{point}"
    with inside(folder):
        read = read_recipe("short.yaml", Recipe)
        with mock.patch(f"pomona.runs.store.RunStore.{point}", side_effect=Killed), pytest.raises(Killed):
            adapt(read, run.name)
        if point == "drop_checkpoints":  # half of them gone, in the worst order
            shutil.rmtree(run / "checkpoint" / "pomona" / "adapter")
        adapt(read, run.name, resume=True)
    assert_same_run(run, short)


class Killed(BaseException):
    """Nothing catches this."""


def test_a_torn_line_in_the_history_is_no_matter(folder: Path, short: Path) -> None:
    with inside(folder):
        read = read_recipe("short.yaml", Recipe)
        with pytest.raises(KeyboardInterrupt):
            adapt(read, "torn", progress=Interrupts(at=15))
        with (folder / "torn" / "history.jsonl").open("a") as history:
            history.write('{"kind": "step", "sys')
        adapt(read, "torn", resume=True)
    assert_same_run(folder / "torn", short)


def test_training_that_diverges_is_a_failed_run_with_its_reason(folder: Path) -> None:
    changes = ["tuning.learning_rate=1000", "tuning.gradient_clip=null"]
    with inside(folder), pytest.raises(Exception, match="not finite") as caught:
        adapt(read_recipe("short.yaml", Recipe, changes), "diverged")
    assert getattr(caught.value, "exit_code", None) == 1
    record = json.loads((folder / "diverged" / "record.json").read_text())
    assert record["status"] == "failed"
    assert "tuning.learning_rate" in record["error"]
    assert record["timing"]["total_seconds"] > 0
    assert not (folder / "diverged" / "adapter").exists()


def test_resume_with_another_recipe_is_refused(folder: Path, short: Path) -> None:
    before = (short / "record.json").read_bytes()
    refused = call(folder, "adapt", "short.yaml", "--output", "short", "--resume", "--set", "seed=7")
    assert refused.code == 2
    assert len(refused.errors) == 1
    assert "recipe.yaml: the recipe differs" in refused.errors[0]
    assert (short / "record.json").read_bytes() == before


def test_resume_with_other_data_or_another_source_is_refused(folder: Path) -> None:
    """A run must not train on one half of its data and be tested on another draw: the leak check would not see it."""
    data, alpha = folder / "data.jsonl", folder / "adapters" / "alpha"
    original = data.read_bytes()
    with inside(folder):
        read = read_recipe("short.yaml", Recipe)
        with pytest.raises(KeyboardInterrupt):
            adapt(read, "changed", progress=Interrupts(at=15))
        write_rows(data, rows(44))
        with pytest.raises(InputError, match="data: not as it was when this run began"):
            adapt(read, "changed", resume=True)
        data.write_bytes(original)
        shutil.move(alpha, folder / "aside")
        shutil.copytree(folder / "adapters" / "beta", alpha)
        with pytest.raises(InputError, match="sources: not as it was when this run began"):
            adapt(read, "changed", resume=True)
        shutil.rmtree(alpha)
        shutil.move(folder / "aside", alpha)
        for name, key in (
            ("config.json", "rms_norm_eps"),
            ("tokenizer_config.json", "chat_template"),
            ("generation_config.json", "eos_token_id"),
        ):
            file = folder / "model" / name
            before = file.read_bytes() if file.exists() else None
            content = json.loads(before or b"{}") | {
                key: {"chat_template": "{{ messages }}", "eos_token_id": [2, 5]}.get(key, 1e-3)
            }
            file.write_text(json.dumps(content))
            with pytest.raises(InputError, match=r"^model's .*: not as it was when this run began"):
                adapt(read, "changed", resume=True)
            file.write_bytes(before) if before else file.unlink()
        assert adapt(read, "changed", resume=True).status == "done"
