"""An experiment on several workers gives what it gives in one process, bit for bit, though a worker is killed within a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.end_to_end.setting import adapter_bytes, call, comparable, make_setting, recipe, write_recipe

CELLS = ["p50-0", "p50-1"]

# Runs in every process that is started with it on its path: the first one to write a second checkpoint is killed by it.
KILLER = """
import os, signal
flag, written, real = {flag!r}, [], os.replace
def replace(source, target, **options):
    real(source, target, **options)
    if "checkpoint" in str(target) and "p50" in str(target):
        written.append(target)
        if len(written) == 2:
            try:
                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder, and in it `alone`: all cells run in one process and one thread."""
    folder = make_setting(tmp_path_factory.mktemp("workers"))
    base = recipe(tuning={"epochs": 1, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1})
    systems: dict[str, Any] = {"p50": {"controller": {"name": "fixed", "prune_ratio": 0.5}}}
    content = {"name": "small", "recipe": base, "seeds": [0, 1], "systems": systems, "metrics": ["chrf"], "draws": 150}
    write_recipe(folder / "exp.yaml", content)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    done = call(folder, "experiment", "exp.yaml", "--output", "alone")
    torch.set_num_threads(threads)
    assert done.code == 0, done.err
    return folder


def check_equal(one: Path, other: Path) -> None:
    for cell in CELLS:
        assert adapter_bytes(one / cell) == adapter_bytes(other / cell), cell
        assert comparable(one / cell) == comparable(other / cell), cell
        assert (one / cell / "predictions.jsonl").read_bytes() == (other / cell / "predictions.jsonl").read_bytes()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_workers_give_what_one_process_gives(folder: Path, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed") if engine == "ray" else None
    flag = tmp_path / "killed"
    (tmp_path / "sitecustomize.py").write_text(KILLER.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if ray is not None:  # two cores whatever the machine has, so one thread a worker
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        done = call(folder, "experiment", "exp.yaml", "--output", f"on-{engine}", "--engine", engine, "--workers", "2")
    finally:
        if ray is not None:
            ray.shutdown()
    assert done.code == 0, done.err
    assert flag.exists()  # a worker was killed
    check_equal(folder / "alone", folder / f"on-{engine}")
