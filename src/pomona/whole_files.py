"""Files that are written whole or not at all, and are on the disk before anything relies on them.

A file is written under a name of its own, forced to the disk, and takes its place by a rename; the folder's entry is forced to the
disk last. So neither a kill nor a power failure leaves half a file under the name that readers look for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

SCRATCH = ".writing"
"""How the name ends under which a file is written: `.NAME.writing`, next to its place. A killed write leaves one behind, and the
next write of the file replaces it."""


def write_whole(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text in UTF-8.

    Args:
        path: the file, in a folder that is there.
        text: what it is to hold.
        errors: how characters without an encoding are written, as for `str.encode`.

    Raises:
        OSError: the disk refuses; what stood there is as before.
    """
    with whole_file(path) as scratch:
        scratch.write_bytes(text.encode("utf-8", errors))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name to write under; what is there at the end of the block takes the place of the file.

    Raises:
        OSError: the disk refuses; what stood there is as before.
    """
    scratch = path.with_name(f".{path.name}{SCRATCH}")
    try:
        yield scratch
        sync(scratch)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk; where the system knows no such thing, nothing happens.

    Raises:
        OSError: the disk refuses.
    """
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Force a folder with all files in it to the disk.

    Raises:
        OSError: the disk refuses.
    """
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
