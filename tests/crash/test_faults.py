"""Faults at random places, in real processes: nothing is lost, nothing is torn, and what is left can be gone on with.

A few in every run of the tests; `make soak` sets POMONA_CRASH_KILLS to 40.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from tests.crash.warm import Warm
from tests.end_to_end.setting import adapter_bytes, call, comparable, make_setting, recipe, write_recipe

from pomona.adapters import read_adapter

KILLS = int(os.environ.get("POMONA_CRASH_KILLS", "2"))
SHORT = {
    "tuning": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1},
    "splits": {"train": 8, "micro_dev": 4, "dev": 2, "test": 2},
    "controller": {"name": "fixed", "prune_ratio": 0.5},
    "evaluation": {"draws": 100, "baselines": ["zero_shot"]},
    "task": {"name": "summarization", "max_new_tokens": 2},
}
SAVING = {
    "merge": ("merge", "adapters/alpha", "adapters/beta"),
    "export": ("export", "adapters/alpha", "--for", "merged", "--base", "model"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("faults"))
    write_recipe(folder / "run.yaml", recipe(name="run", **SHORT))
    return folder


def started(folder: Path, *arguments: str, kill_at: int | None = None, largest_file: int | None = None) -> tuple[Warm, str]:
    running = Warm(folder, *arguments, kill_at=kill_at, largest_file=largest_file)
    return running, running.ended(timeout=120)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of an adapter or a model, without its card, which is written when they are in their place."""
    files = (path for path in folder.rglob("*") if path.is_file() and "README.md" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def places(operations: int, seed: str) -> list[int]:
    """Some of the operations, and the last one."""
    drawn = random.Random(seed).sample(range(1, operations), min(KILLS, operations) - 1)
    return [*drawn, operations]


@pytest.mark.parametrize("verb", SAVING)
def test_a_killed_replacement_leaves_one_of_the_two_whole(folder: Path, verb: str) -> None:
    work = folder / f"kills-{verb}"
    work.mkdir()
    command = (*SAVING[verb], "--output", f"{work.name}/out", "--force")
    first, said = started(folder, *command)
    assert first.returncode == 0, said
    new = contents(work / "out")
    marker = work / "out" / ("config.json" if verb == "export" else "adapter_config.json")
    second, said = started(folder, *command)
    assert second.returncode == 0, said
    for place in places(second.operations, verb):
        marker.write_bytes(new[marker.name] + b"\n")  # the one that stands there can be told from the new one
        old = contents(work / "out")
        killed, said = started(folder, *command, kill_at=place)
        assert killed.returncode == -9, said
        again, said = started(folder, *command) if not (work / "out").exists() else (None, "")
        assert contents(work / "out") in (old, new) or again is not None
        done, said = started(folder, *command)
        assert done.returncode == 0, said
        assert contents(work / "out") == new
        assert hidden(work) == []


def test_a_run_killed_at_random_file_operations_ends_as_if_nothing_had_happened(folder: Path) -> None:
    whole, said = started(folder, "adapt", "run.yaml", "--output", "whole")
    assert whole.returncode == 0, said
    for place in places(whole.operations, "adapt")[-KILLS:]:
        killed, said = started(folder, "adapt", "run.yaml", "--output", "hurt", kill_at=place)
        assert killed.returncode == -9, said
        resume = ("--resume",) if (folder / "hurt" / "recipe.yaml").exists() else ()
        done, said = started(folder, "adapt", "run.yaml", "--output", "hurt", *resume)
        assert done.returncode == 0, said
        assert adapter_bytes(folder / "hurt") == adapter_bytes(folder / "whole")
        assert comparable(folder / "hurt") == comparable(folder / "whole")
        assert hidden(folder / "hurt") == []
        shutil.rmtree(folder / "hurt")


def test_a_full_disk_leaves_the_old_adapter(folder: Path) -> None:
    command = ("merge", "adapters/alpha", "adapters/beta", "--output", "full/out", "--force")
    assert call(folder, *command).code == 0
    before = contents(folder / "full")
    failed, said = started(folder, *command, largest_file=1000)
    assert failed.returncode == 2, said
    assert said.splitlines()[-1].startswith("error: ")
    assert "File too large" in said
    assert contents(folder / "full") == before


def test_a_disk_that_fills_up_during_a_run_is_said_and_the_run_goes_on_later(folder: Path) -> None:
    failed, said = started(folder, "adapt", "run.yaml", "--output", "filled", largest_file=6000)
    assert failed.returncode in {1, 2}, said
    assert "Traceback" not in said
    assert "File too large" in said
    assert (folder / "filled" / "recipe.yaml").exists()
    done, said = started(folder, "adapt", "run.yaml", "--output", "filled", "--resume")
    assert done.returncode == 0, said
    assert hidden(folder / "filled") == []


def test_a_source_that_vanishes_is_named(folder: Path) -> None:
    shutil.copytree(folder / "adapters" / "alpha", folder / "adapters" / "gone")
    (folder / "adapters" / "gone" / "adapter_model.safetensors").unlink()
    outcome = call(folder, "merge", "adapters/gone", "adapters/beta", "--output", "never")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert "adapters/gone" in outcome.err
    assert not (folder / "never").exists()
    assert len(read_adapter(folder / "adapters" / "alpha"))
