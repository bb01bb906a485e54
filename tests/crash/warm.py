"""Processes of `pomona` that start warm: forked from a server that has imported what a run needs.

A start takes ten seconds of imports. What is shown by killing a process does not depend on them: a forked one has a folder, an
environment and an end of its own.
"""

from __future__ import annotations

import multiprocessing
import os
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
    """A started `pomona`, with what a test asks of a `subprocess.Popen`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._said = folder / "said.txt"
        self._process = _SERVER.Process(target=_run, args=(folder, arguments, environment(folder), self._said))
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


def _run(folder: Path, arguments: tuple[str, ...], seen: dict[str, str], said: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(seen)
    os.chdir(folder)
    torch.set_num_threads(1)
    with said.open("wb") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    sys.argv = ["pomona", *arguments]
    main()
