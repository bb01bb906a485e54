"""Cells handed out to workers: each once, those with common work together, and what happens when workers are lost or stopped."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.runs.experiments.recipe import Cell
from pomona.runs.experiments.workers import ATTEMPTS, Engine, WorkerLostError, find_engine, run_on_workers
from pomona.runs.recipe import Recipe
from pomona.tuning.progress import Silent


def cells(settings: int, seeds: int, systems: int) -> list[Cell]:
    recipe = cast(Recipe, None)
    return [
        Cell(f"s{setting}", f"y{system}", seed, recipe, None, f"s{setting}/y{system}-{seed}")
        for setting in range(settings)
        for seed in range(seeds)
        for system in range(systems)
    ]


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


class Workers:
    """Workers of which a cell can end some."""

    def __init__(self, count: int, fatal: dict[str, int] | None = None, failing: tuple[str, ...] = ()) -> None:
        self.ran: list[tuple[int, str]] = []
        self.begun: Counter[int] = Counter()
        self.stopped: list[int] = []
        self._fatal, self._failing = dict(fatal or {}), failing
        self.engine = Engine(count, self._begin, "test")

    def _begin(self, number: int) -> Any:
        self.begun[number] += 1
        here = self

        class One:
            def run(self, path: str) -> str | None:
                here.ran.append((number, path))
                if here._fatal.get(path, 0) > 0:
                    here._fatal[path] -= 1
                    raise WorkerLostError("its worker was killed")
                return "it cannot be done" if path in here._failing else None

            def stop(self) -> None:
                here.stopped.append(number)

        return One()


@given(settings=st.integers(1, 3), seeds=st.integers(1, 3), systems=st.integers(1, 4), count=st.integers(1, 5))
def test_every_cell_runs_once(settings: int, seeds: int, systems: int, count: int) -> None:
    asked, workers = cells(settings, seeds, systems), Workers(count)
    run_on_workers(asked, workers.engine, Silent())
    assert sorted(path for _, path in workers.ran) == sorted(cell.path for cell in asked)
    assert max(workers.begun.values()) == 1
    assert sorted(workers.stopped) == sorted(workers.begun)


def test_one_worker_keeps_the_order() -> None:
    asked, workers = cells(2, 2, 3), Workers(1)
    run_on_workers(asked, workers.engine, Silent())
    assert [path for _, path in workers.ran] == [cell.path for cell in asked]


def test_cells_of_one_setting_and_seed_go_to_one_worker() -> None:
    """Both workers wait for each other at their first cells, so each has taken a group before any group is done."""
    meeting = threading.Barrier(2, timeout=10)
    ran: list[tuple[int, str]] = []

    class One:
        def __init__(self, number: int) -> None:
            self.number = number

        def run(self, path: str) -> None:
            ran.append((self.number, path))
            meeting.wait()

        def stop(self) -> None: ...

    run_on_workers(cells(1, 2, 3), Engine(2, lambda number: cast(Any, One(number)), "test"), Silent())
    owners = {seed: {number for number, path in ran if path.endswith(f"-{seed}")} for seed in (0, 1)}
    assert sorted(map(len, owners.values())) == [1, 1]
    assert owners[0] != owners[1]


def test_an_idle_worker_takes_over_the_last_cells_of_another() -> None:
    """One group of two cells: while the first runs, the other worker runs the last."""
    meeting = threading.Barrier(2, timeout=10)
    ran: dict[str, int] = {}

    class One:
        def __init__(self, number: int) -> None:
            self.number = number

        def run(self, path: str) -> None:
            ran[path] = self.number
            meeting.wait()

        def stop(self) -> None: ...

    run_on_workers(cells(1, 1, 2), Engine(2, lambda number: cast(Any, One(number)), "test"), Silent())
    assert sorted(ran.values()) == [0, 1]


def test_a_lost_worker_is_replaced_and_its_cell_begun_again() -> None:
    asked, workers, heard = cells(1, 1, 3), Workers(1, fatal={"s0/y1-0": ATTEMPTS - 1}), Heard()
    run_on_workers(asked, workers.engine, heard)
    assert [path for _, path in workers.ran] == ["s0/y0-0", *["s0/y1-0"] * ATTEMPTS, "s0/y2-0"]
    assert workers.begun == {0: ATTEMPTS}
    assert heard.warnings == []


def test_a_cell_that_ends_every_worker_fails_and_the_others_run() -> None:
    asked, workers, heard = cells(1, 1, 3), Workers(2, fatal={"s0/y1-0": 99}, failing=("s0/y2-0",)), Heard()
    run_on_workers(asked, workers.engine, heard)
    assert Counter(path for _, path in workers.ran) == {"s0/y0-0": 1, "s0/y1-0": ATTEMPTS, "s0/y2-0": 1}
    assert sorted(heard.warnings) == ["s0/y1-0 failed: its worker was killed", "s0/y2-0 failed: it cannot be done"]


def test_an_interruption_stops_the_workers_and_begins_no_other_cell() -> None:
    began = threading.Event()
    stopped = threading.Event()
    ran: list[str] = []

    class One:
        def run(self, path: str) -> None:
            ran.append(path)
            began.set()
            assert stopped.wait(10)
            raise WorkerLostError("it was told to stop")

        def stop(self) -> None:
            stopped.set()

    class Pressed(Silent):
        def begin(self, stage: str, total: int) -> None:
            main = threading.main_thread().ident
            assert main is not None
            threading.Thread(target=lambda: (began.wait(10), signal.pthread_kill(main, signal.SIGINT))).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            run_on_workers(cells(1, 1, 3), Engine(1, lambda _: cast(Any, One()), "test"), Pressed())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ran == ["s0/y0-0"]


def test_a_worker_that_cannot_begin_ends_the_experiment() -> None:
    def begin(_: int) -> Any:
        raise InputError("cannot begin")

    with pytest.raises(InputError, match="cannot begin"):
        run_on_workers(cells(1, 1, 3), Engine(2, begin, "test"), Silent())


def test_engines_by_name(tmp_path: Path) -> None:
    assert find_engine("local", None, tmp_path) is None
    assert find_engine("local", 1, tmp_path) is None
    found = find_engine("local", 3, tmp_path)
    assert found is not None
    assert (found.count, found.name) == (3, "local")
    with pytest.raises(InputError, match=r"workers: at least one worker is needed \(got 0\). Give 1 or more"):
        find_engine("local", 0, tmp_path)
    with pytest.raises(InputError, match=r"engine: no such engine \(got 'dask'\). Use local or ray"):
        find_engine("dask", None, tmp_path)
