"""Create a folder atomically, without overwriting anything else by accident."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE
from pomona.errors import InputError


def refuse_occupied(target: Path, *, force: bool, marker: str = CONFIG_FILE, kind: str = "adapter") -> None:
    """Refuse an occupied target, before writing and before any long work.

    Args:
        target: the folder to write.
        force: replace an existing folder of the same kind.
        marker: the file that identifies a folder of this kind.
        kind: the name of this kind of folder.

    Raises:
        InputError: the target exists and `force` is not given, or it is not a folder of this kind.
    """
    if not target.exists() or _is_empty_folder(target):
        return
    if not force:
        raise InputError("already exists", file=target, fix="Choose another folder, or give --force to replace it")
    if not (target / marker).is_file():
        # Replacing deletes the old folder, so it must be of the same kind.
        raise InputError(f"is not an {kind} folder and will not be replaced", file=target, fix="Choose another folder")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A hidden folder next to `target` to write into; it replaces `target` if the block succeeds, and is deleted otherwise.

    An existing folder at `target` is first moved aside, and restored if the replacement fails.

    Raises:
        InputError: writing to the disk failed.
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
