"""Many runs in one process leave nothing behind: no memory, no open files, no temporary files. `make soak` alone runs it."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import numpy
import pytest
from tests.crash.test_faults import SHORT, hidden
from tests.end_to_end.setting import inside, make_setting, recipe, write_recipe

from pomona.runs.adapt import adapt
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe

RUNS = int(os.environ.get("POMONA_SOAK_RUNS", "0"))
FIRST = 20
"""Runs in which caches fill."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(RUNS <= FIRST, reason="`make soak` sets POMONA_SOAK_RUNS")
def test_runs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_setting(tmp_path)
    write_recipe(folder / "run.yaml", recipe(name="run", **SHORT))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    memory, files = [], []
    with inside(folder):
        read = read_recipe("run.yaml", Recipe)
        for number in range(RUNS):
            adapt(read, f"runs/{number}")
            gc.collect()
            memory.append(resident_megabytes())
            files.append(len(names(Path("/proc/self/fd"))))
            assert hidden(folder / "runs" / str(number)) == []
    slope = float(numpy.polyfit(range(FIRST, RUNS), memory[FIRST:], 1)[0])
    assert slope < 0.5, f"{slope:.2f} MB more a run"
    assert files[-1] == files[0]
    assert names(temporary) == set()
