"""Putting a new folder in its place: whole or not at all, and never over something else by accident."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE
from pomona.errors import InputError


def refuse_occupied(target: Path, *, force: bool, marker: str = CONFIG_FILE, kind: str = "adapter") -> None:
    """What a writer asks before it writes, and whoever works long before it writes.

    Args:
        target: the folder to write.
        force: replace a folder of the same kind that stands there.
        marker: the file by which a folder of this kind is known.
        kind: what such a folder is called.

    Raises:
        InputError: something stands there and `force` is not given, or it is not a folder of this kind.
    """
    if not target.exists() or _is_empty_folder(target):
        return
    if not force:
        raise InputError("already exists", file=target, fix="Choose another folder, or give --force (force=True) to replace it")
    if not (target / marker).is_file():
        # Replacing deletes what stands there: never a folder of other things.
        raise InputError(f"is not an {kind} folder and will not be replaced", file=target, fix="Choose another folder")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` to write into, which takes its place when the block ends well, and else goes.

    A folder that stands at `target` is moved aside first, and comes back if the new one cannot take its place.

    Raises:
        InputError: the disk refuses.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        _put_in_place(partial, target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.exists() or _is_empty_folder(target):
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
