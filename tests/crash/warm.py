"""Processes of `pomona` that start warm: forked from a server that has imported what a run needs.

A start takes ten seconds of imports. What is shown by killing a process does not depend on them: a forked one has a folder, an
environment and an end of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

import torch
import transformers.generation.utils
import transformers.models.llama.modeling_llama  # noqa: F401
from tests.end_to_end.setting import environment

import pomona.report
import pomona.runs.adapt  # noqa: F401
from pomona.cli.main import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])


class Warm:
    """A started `pomona`, with what a test asks of a `subprocess.Popen`.

    Args:
        folder: where it works.
        arguments: of the command line.
        kill_at: the file operation in the folder before which it kills itself, counted from 1; None: never. The number of all of
            them is then `operations`.
        largest_file: the size in bytes beyond which the disk takes no file.
    """

    def __init__(self, folder: Path, *arguments: str, kill_at: int | None = None, largest_file: int | None = None) -> None:
        self._said, self._counted = folder / "said.txt", folder / "operations.txt"
        given = (folder, arguments, environment(folder), self._said, self._counted, kill_at, largest_file)
        self._process = _SERVER.Process(target=_run, args=given)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """As of `Popen`: negative where a signal ended it, None while it runs."""
        return self._process.exitcode

    def stop(self, sent: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.pid is not None and self._process.exitcode is None:
            os.kill(self._process.pid, sent)

    def ended(self, timeout: float) -> str:
        """Wait for the end; what it had said by then."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it does not end"
        return self._said.read_text(encoding="utf-8")

    @property
    def operations(self) -> int:
        """How many file operations it has made in the folder, after its end."""
        return int(self._counted.read_text(encoding="ascii"))


class _Operations:
    """Counts what changes files below a folder, and kills the process before one of them."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.count, self._root, self._kill_at = 0, str(folder), kill_at

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """An audit hook."""
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(self._root):  # noqa: PTH100 (a hook opens nothing)
            return
        self.count += 1
        if self.count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def _run(
    folder: Path,
    arguments: tuple[str, ...],
    seen: dict[str, str],
    said: Path,
    counted: Path,
    kill_at: int | None,
    largest_file: int | None,
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(seen)
    os.chdir(folder)
    torch.set_num_threads(1)
    with said.open("wb") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    sys.argv = ["pomona", *arguments]
    operations = _Operations(folder, kill_at)
    sys.addaudithook(operations)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        main()
    finally:
        counted.write_text(str(operations.count), encoding="ascii")
