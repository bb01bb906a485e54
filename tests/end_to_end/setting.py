"""A working folder with everything that a run needs, in the small: a model, data, two source adapters, recipes.

All paths in the recipes are relative to the folder, so runs in different folders have equal recipes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import typer
import yaml
from tests.tiny import TARGETS, save_tiny_model, tiny_adapter, tiny_backbone

from pomona.adapters import write_adapter
from pomona.pruning import pruned_count

WORDS = "amber birch cedar dune ember fjord grove heath islet jetty knoll larch marsh north ocean pine quay river slope thorn"
COMMAND = (sys.executable, "-m", "pomona.cli.main")
QUICK = {
    "tuning": {"epochs": 1, "batch_size": 8, "learning_rate": 0.01},
    "controller": {"name": "fixed", "prune_ratio": 0.25},
    "evaluation": {"baselines": ["zero_shot"], "draws": 100},
}
"""Changes that make `recipe` as short as a whole run can be."""

_parser = functools.cache(typer.main.get_command)
"""The command line's parser, which `call` makes once: a process of its own makes one too."""


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    """Short documents, no two alike, each with its first two words as the summary."""
    words, found = WORDS.split(), []
    for number in range(first, first + count):
        one, two, three = words[number % 20], words[(number * 7 + 3) % 20], words[(number // 2 + 5) % 20]
        found.append({"id": f"row{number}", "document": f"{one} {two} {three} {one} {number}", "summary": f"{one} {two}"})
    return found


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def recipe(**changes: Any) -> dict[str, Any]:
    """A run of 18 steps with three rounds of the controller; seconds on one core."""
    return {
        "name": "small",
        "model": "model",
        "task": {"name": "summarization", "max_new_tokens": 6},
        "data": {"train": "data.jsonl"},
        "splits": {"train": 24, "micro_dev": 6, "dev": 4, "test": 6},
        "sources": [
            {"name": "alpha", "adapter": "adapters/alpha"},
            {"name": "beta", "adapter": "adapters/beta", "weight": 0.5},
        ],
        "lora": {"rank": 3, "alpha": 6},
        "tuning": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1},
        "controller": {"name": "grasp", "interval_steps": 3},
        "evaluation": {"draws": 200},
    } | changes


def write_recipe(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def make_setting(folder: Path) -> Path:
    """Fill `folder`: `model/`, `data.jsonl` (40 rows), `adapters/{alpha,beta}`, `small.yaml`, `source.yaml`."""
    save_tiny_model(folder / "model")
    write_rows(folder / "data.jsonl", rows(40))
    write_rows(folder / "source.jsonl", rows(12, first=100))
    backbone = tiny_backbone()
    write_adapter(tiny_adapter(backbone, seed=1), folder / "adapters" / "alpha")
    write_adapter(tiny_adapter(backbone, seed=2, targets=TARGETS["llama"]), folder / "adapters" / "beta")
    write_recipe(folder / "small.yaml", recipe())
    source = {"name": "gamma", "model": "model", "data": {"train": "source.jsonl"}, "lora": {"rank": 3, "alpha": 6}}
    write_recipe(folder / "source.yaml", source | {"tuning": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01}})
    return folder


def quota(prune_ratio: float, entries: int, ranks: Sequence[int]) -> int:
    """How many of a factor's entries go where adapters of these ranks stand beside each other: of each its own share."""
    return sum(pruned_count(prune_ratio, entries * rank // sum(ranks)) for rank in ranks)


def environment(folder: Path) -> dict[str, str]:
    """What a process of ours may see: one thread, a cache of the test's own, no network."""
    ours = {"OMP_NUM_THREADS": "1", "POMONA_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    return {name: value for name, value in os.environ.items() if not name.startswith("POMONA_")} | ours


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines that tell an error."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


def process(folder: Path, *arguments: str) -> Outcome:
    """Run `pomona` in `folder` as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `pomona` in `folder` and go on."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, and all that it starts, ignores SIGINT: the tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def call(folder: Path, *arguments: str) -> Outcome:
    """Run `pomona` in `folder` within this process: the same front door, without the seconds that a start takes."""
    from pomona.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    typed = mock.patch.object(sys, "argv", ["pomona", *arguments])
    with (
        inside(folder),
        typed,
        mock.patch("typer.main.get_command", _parser),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Within the block this process works as `process` would: in `folder`, with its environment and one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.chdir(folder), mock.patch.dict(os.environ, environment(folder), clear=True):
            yield
    finally:
        torch.set_num_threads(threads)


def listing(folder: Path) -> dict[str, int]:
    """Every file and folder below `folder`, with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def comparable(run: Path) -> dict[str, Any]:
    """A run's record without its times, and without the commit of the code (someone may be at work on it)."""
    record: dict[str, Any] = json.loads((run / "record.json").read_text(encoding="utf-8"))
    del record["started"], record["timing"], record["environment"]["git_commit"]
    for system in record["systems"].values():
        del system["train_seconds"]
    return record


def adapter_bytes(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()
