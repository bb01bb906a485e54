"""Work that is stopped from outside, by Ctrl-C or by the SIGTERM that schedulers send, and how to go on with it."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

INTERRUPTED, TERMINATED = 130, 143
DEBUG = "--debug"


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Whoever cleans up after Ctrl-C cleans up after this, too."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`. In another thread than the main one it ends the process at once, as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(*_: object) -> None:
    raise Terminated


@contextlib.contextmanager
def resumable(folder: Path, marker: str, *, named: bool) -> Iterator[None]:
    """Within the block an interruption says how to go on, if the run had begun.

    Args:
        folder: the run's.
        marker: the file in it that every run begins with.
        named: whether the command line names the folder.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if (folder / marker).is_file():
            place = () if named else ("--output", str(folder))
            interrupt.add_note(f"go on with: {command_line(*place, '--resume')}")
        raise


def message(interrupt: KeyboardInterrupt) -> str:
    """What to say about it, in one line."""
    how = "terminated" if isinstance(interrupt, Terminated) else "interrupted"
    notes = getattr(interrupt, "__notes__", ())
    return f"{how}; {notes[0] if notes else f'nothing of it is kept; start again with: {command_line()}'}"


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """As shells count: 128 and the signal's number."""
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


def command_line(*added: str) -> str:
    """The command that is running, with these arguments added where they are not there yet, to be pasted into a shell."""
    given = [argument for argument in sys.argv[1:] if argument != DEBUG]
    resume = [argument for argument in added if argument not in given or not argument.startswith("--")]
    return shlex.join(["pomona", *given, *resume])
