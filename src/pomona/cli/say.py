"""What a verb prints: names, paths and answers are shown, and never act on the terminal."""

from __future__ import annotations

import sys
from typing import TextIO

import typer

from pomona.closed_streams import mute
from pomona.plain_text import visible


def say(text: object, *, err: bool = False, lines: bool = False) -> None:
    """Print a line, with what would act on a terminal escaped, and what the output's encoding lacks.

    Args:
        text: what to print.
        err: to standard error.
        lines: the text has several lines.
    """
    try:
        typer.echo(_encodable(visible(str(text), lines=lines), sys.stderr if err else sys.stdout), err=err)
    except (OSError, ValueError):  # its reader is gone, or it is closed
        if not err:
            raise
        mute(sys.stderr)  # an exit code does not depend on who reads the message


def say_answer(text: str) -> None:
    """Print a model's answer: as it is into a file or a pipe, escaped on a terminal."""
    if sys.stdout.isatty():
        say(text, lines=True)
    else:
        print(_encodable(text, sys.stdout))  # typer.echo would take colours out of it


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
