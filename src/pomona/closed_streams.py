"""Output that nobody reads any more: a pipe whose reader has ended, a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def mute(stream: TextIO | None) -> None:
    """Let all that is still written to the stream go nowhere, also what waits in its buffer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())  # pyright: ignore[reportOptionalMemberAccess]
        finally:
            os.close(nowhere)


class LastingError:
    """Standard error as it is at each moment, which takes text whether or not somebody reads it."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Write the text, if that is possible."""
        stream = _stderr()
        try:
            if stream is not None:
                stream.write(text)
        except (OSError, ValueError):
            mute(stream)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        stream = _stderr()
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            mute(stream)

    def isatty(self) -> bool:
        """Whether standard error is a terminal."""
        stream = _stderr()
        return stream is not None and not stream.closed and stream.isatty()

    def fileno(self) -> int:
        """Of standard error.

        Raises:
            OSError: there is none.
        """
        stream = _stderr()
        if stream is None:
            raise OSError("there is no standard error")
        return stream.fileno()


def _stderr() -> TextIO | None:
    """Without rich's stand-in for it, which writes to a console on this very stream."""
    stream = sys.stderr
    return getattr(stream, "rich_proxied_file", stream)
