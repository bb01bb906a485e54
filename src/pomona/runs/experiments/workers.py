"""An experiment's cells handed out to several workers: which worker runs which cell, and what happens when a worker is lost."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pomona.errors import InputError, PomonaError
from pomona.runs.experiments.recipe import Cell
from pomona.tuning.progress import Progress

ATTEMPTS = 3
"""How often a cell is begun before it counts as failed, where its worker was lost each time."""
_LOOK = 0.5
"""Seconds between two looks for an interruption."""


class WorkerLostError(PomonaError):
    """The worker ended before its cell did: killed, out of memory, or its machine is gone."""


class Worker(Protocol):
    """Another process that runs cells, one at a time, and keeps what they have in common (see `SharedWork`)."""

    def run(self, path: str) -> str | None:
        """Run the cell in the experiment's folder, or go on with it from its checkpoint.

        Args:
            path: of the cell, within the experiment's folder.

        Returns:
            Why it failed; None where it is done.

        Raises:
            WorkerLostError: the worker ended meanwhile.
        """
        ...

    def stop(self) -> None:
        """End the worker; a cell that is running is interrupted and keeps its checkpoint."""


@dataclass(frozen=True)
class Engine:
    """Where the workers are.

    Args:
        count: how many of them.
        begin: begins the worker of a number below `count`; called again where that worker was lost.
        name: of the engine, for messages.
    """

    count: int
    begin: Callable[[int], Worker]
    name: str


def run_on_workers(cells: Sequence[Cell], engine: Engine, progress: Progress) -> None:
    """Run the cells, each on some worker; a cell whose worker was lost is begun again, from its checkpoint.

    Cells of one setting and seed have the target LoRA and the sources in common, so one worker gets them in their order. A worker
    that has nothing left takes over the last cell of the longest such list.

    Raises:
        KeyboardInterrupt: as it came, after every worker was told to stop.
    """
    places = _Places(cells)
    told = threading.Lock()
    workers: list[Worker] = []

    def work(number: int) -> None:
        worker: Worker | None = None
        for cell in iter(places.next_of(number), None):
            reason: str | None = None
            for _ in range(ATTEMPTS):
                if places.closed:
                    return
                if worker is None:
                    worker = engine.begin(number)
                    workers.append(worker)
                try:
                    reason = worker.run(cell.path)
                    break
                except WorkerLostError as lost:
                    worker, reason = None, str(lost)
            with told:
                progress.advance(1, cell.path)
                if reason is not None:
                    progress.warn(f"{cell.path} failed: {' '.join(reason.split())}")

    progress.begin(f"cells on {engine.count} workers ({engine.name})", len(cells))
    pool = ThreadPoolExecutor(engine.count)
    try:
        running = {pool.submit(work, number) for number in range(engine.count)}
        while running:  # a wait without end can miss an interruption that comes just before it
            done, running = wait(running, _LOOK, FIRST_EXCEPTION)
            for one in done:
                one.result()
    finally:
        places.close()
        for worker in tuple(workers):
            with contextlib.suppress(Exception):  # a worker that is gone cannot be stopped, and the others still must be
                worker.stop()
        pool.shutdown()
    progress.end(f"{len(cells)} cells")


class _Places:
    """The cells that nobody has taken, by setting and seed."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        groups: dict[tuple[str, int], deque[Cell]] = {}
        for cell in cells:
            groups.setdefault((cell.setting, cell.seed), deque()).append(cell)
        self._new = deque(groups.values())
        self._taken: dict[int, deque[Cell]] = {}
        self._lock = threading.Lock()
        self.closed = False

    def next_of(self, number: int) -> Callable[[], Cell | None]:
        """A function that gives a worker's next cell, and None where there is none left."""

        def take() -> Cell | None:
            with self._lock:
                own = self._taken.get(number)
                if not own and self._new:
                    own = self._taken[number] = self._new.popleft()
                if own:
                    return own.popleft()
                longest = max(self._taken.values(), key=len, default=deque[Cell]())
                return longest.pop() if longest else None

        return take

    def close(self) -> None:
        """Leave no cell to be taken."""
        with self._lock:
            self.closed = True
            self._new.clear()
            for cells in self._taken.values():
                cells.clear()


def find_engine(name: str, workers: int | None, folder: Path) -> Engine | None:
    """The engine of a name.

    Args:
        name: `local` or `ray`.
        workers: how many; None: one on this machine, and what the cluster has room for with Ray.
        folder: the experiment's.

    Returns:
        None where the cells are run in this process.

    Raises:
        InputError: no such engine; no workers; Ray is not installed or cannot be reached.
    """
    if workers is not None and workers < 1:
        raise InputError("at least one worker is needed", field="--workers", value=workers, fix="Give 1 or more")
    if name == "local":
        from pomona.runs.experiments.local_workers import local_engine

        return None if workers in {None, 1} else local_engine(workers or 1, folder)
    if name == "ray":
        from pomona.runs.experiments.ray_workers import ray_engine

        return ray_engine(workers, folder)
    raise InputError("no such engine", field="--engine", value=name, fix="Use local or ray")
