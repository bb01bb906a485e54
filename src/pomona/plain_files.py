"""Files as inputs: what has no end, or nobody writes to, is refused before it is opened."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pomona.errors import InputError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_special(path: Path) -> None:
    """Refuse what is neither a file nor a folder; what is not there is left to whoever opens it.

    Raises:
        InputError: a named pipe, a socket or a device: reading could wait, or go on, without end.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    if kind is not None:
        raise InputError(f"is {kind} and no file", file=path, fix="Copy what it holds into a file, and give that")


def refuse_special_files(folder: Path, files: Iterable[Path] | None = None) -> None:
    """As `refuse_special`, of the files of a folder whose reader is another library."""
    for file in sorted(folder.iterdir() if files is None else files):
        refuse_special(file)


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        InputError: it is a named pipe, a socket or a device.
        OSError, ValueError: it cannot be opened.
    """
    refuse_special(path)
    return path.open("rb")
