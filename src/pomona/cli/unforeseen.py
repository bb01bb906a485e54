"""The last resort: whatever ends a verb is said in one line, with an exit code, and never as a page of Python."""

from __future__ import annotations

import os
import traceback
from typing import NoReturn

from pomona.cli.processes import end
from pomona.errors import InputError, PomonaError

_NO_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory")
"""What the errors of torch and of the system say where memory is lacking."""


def told(error: BaseException) -> NoReturn:
    """Print an error in one line, with the traceback before it where `--debug` asks for it, and end the command.

    Args:
        error: any; also a panic of a library in Rust, which is no `Exception`.

    Raises:
        SystemExit: with the exit code.
    """
    if os.environ.get("POMONA_DEBUG"):
        traceback.print_exception(error)
    text, code = _line(error)
    end(f"error: {text}", code)


def _line(error: BaseException) -> tuple[str, int]:
    if isinstance(error, PomonaError):
        return str(error), error.exit_code
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in message.lower() for words in _NO_MEMORY):
        fix = "Give a smaller input or model, a smaller batch, or a machine with more memory (--debug shows where)"
        return f"there is not enough memory for this. {fix}.", InputError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror} (--debug shows where)", InputError.exit_code
    return f"{type(error).__name__}: {message} (--debug shows where)", 1
