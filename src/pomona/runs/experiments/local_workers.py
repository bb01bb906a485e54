"""Workers that are processes on this machine, told over a pipe which cell to run; also the program that such a process runs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from pomona.runs.experiments.workers import Engine, WorkerLostError
from pomona.stopping import stoppable

THREADS_OF = "OMP_NUM_THREADS"
_PATIENCE = 30.0
"""Seconds in which an interrupted worker writes its checkpoint, before it is ended."""


def local_engine(count: int, folder: Path) -> Engine:
    """Workers that share the machine's cores, and take turns on its GPUs where it has some."""
    import torch

    threads = max(1, torch.get_num_threads() // count)
    devices = _visible_devices()
    return Engine(count, lambda number: _Process(folder, threads, devices[number % len(devices)] if devices else None), "local")


def _visible_devices() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


class _Process:
    """A worker; it ends with this process, because its orders then end."""

    def __init__(self, folder: Path, threads: int, device: str | None) -> None:
        environment = {**os.environ, THREADS_OF: str(threads)}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then tells the workers
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout

    def run(self, path: str) -> str | None:
        """See `Worker`."""
        try:
            self._orders.write(json.dumps(path) + "\n")
            self._orders.flush()
            answer = self._answers.readline()
        except (OSError, ValueError) as error:  # the pipe is broken, or `stop` has closed it
            raise WorkerLostError(f"its worker has ended ({error})") from error
        if not answer:
            code = self._process.wait()
            raise WorkerLostError(f"its worker ended with {code}")
        return json.loads(answer)

    def stop(self) -> None:
        """See `Worker`."""
        with contextlib.suppress(OSError):
            self._orders.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


def _serve(folder: Path, threads: int, orders: IO[str], answers: IO[str]) -> None:
    """Run one cell a line, until the orders end; where they end during a cell, the cell is interrupted."""
    from pomona.runs.experiments.cell_runner import CellRunner

    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in orders:
            waiting.put(json.loads(line))
        waiting.put(None)
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=listen, daemon=True).start()
    runner = None
    for path in iter(waiting.get, None):
        busy.set()
        runner = runner or CellRunner(folder, threads, Path.cwd())
        reason = runner.run(path)
        busy.clear()
        answers.write(json.dumps(reason) + "\n")
        answers.flush()


def _main() -> None:
    # Whatever prints to standard output goes to standard error: the pipe is for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and all that it starts, ignores it
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError), stoppable():
        _serve(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin, answers)


if __name__ == "__main__":
    from pomona.threads import wait_asleep

    wait_asleep()
    _main()
