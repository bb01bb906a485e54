"""Work that is stopped from outside, by Ctrl-C, a scheduler or a terminal that closes, and how to go on with it."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from pomona.stopping import SIGNALS, Stopped

INTERRUPTED = 130
DEBUG = "--debug"


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
    how = SIGNALS[signal.Signals(interrupt.number).name] if isinstance(interrupt, Stopped) else "interrupted"
    notes = getattr(interrupt, "__notes__", ())
    return f"{how}; {notes[0] if notes else f'nothing of it is kept; start again with: {command_line()}'}"


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """As shells count: 128 and the signal's number."""
    return 128 + (interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT)


def command_line(*added: str) -> str:
    """The command that is running, with these arguments added where they are not there yet, to be pasted into a shell."""
    given = [argument for argument in sys.argv[1:] if argument != DEBUG]
    resume = [argument for argument in added if argument not in given or not argument.startswith("--")]
    return shlex.join(["pomona", *given, *resume])
