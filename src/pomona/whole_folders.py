"""Folders that are written whole or not at all, and exchanged for what stands there in one operation.

A folder is written under a hidden name next to its place, which its writer holds locked, forced to the disk, and renamed. What a
killed writer leaves behind is held by nobody: the next writer removes it, or puts back what was moved aside.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pomona.errors import InputError
from pomona.folder_lock import FolderLock, is_locked
from pomona.whole_files import SCRATCH, sync, sync_tree

_HIDDEN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>partial|old)", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A hidden folder next to `target` to write into; it replaces `target` if the block succeeds, and is removed otherwise.

    Raises:
        InputError: the disk refuses; what stood there is as before.
    """
    holder = _hidden(target, "partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, target.name)
        holder.mkdir(mode=0o700)  # nobody else reads what is not whole; what is, has the rights that folders have here
        with FolderLock(holder):  # the lock's file would be one of the folder's, so the folder lies within
            partial = holder / target.name
            partial.mkdir()
            yield partial
            sync_tree(partial)
            _put_in_place(partial, target)
            sync(target.parent)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes have left in a folder, and put back what they had moved aside.

    Args:
        folder: it is not searched deeper. What a living process is writing is left alone, and so is what has no name of Pomona's.
        name: of the file or folder that they were writing; None: of any.
    """
    try:
        found = [(path, match) for path in folder.iterdir() if (match := _HIDDEN.fullmatch(path.name))]
    except OSError:
        return
    for path, match in found:
        if (name is not None and match["name"] != name) or path.is_symlink() or not path.is_dir():
            continue
        target = folder / match["name"]
        if match["kind"] == "old" and not target.exists():
            with contextlib.suppress(OSError):
                path.rename(target)
        elif not is_locked(path):
            shutil.rmtree(path, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether a killed process of Pomona may have left a file or folder of this name."""
    return _HIDDEN.fullmatch(path.name) is not None or (path.name.startswith(".") and path.name.endswith(SCRATCH))


def _hidden(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{kind}")


def _put_in_place(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)  # also over an empty folder
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
    else:
        return
    if _exchange(partial, target):
        return
    old = _hidden(target, "old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one operation; False where the system or the disk has no such operation."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number))


@functools.cache
def _renameat2() -> ctypes._NamedFuncPointer | None:
    try:
        found = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    found.restype = ctypes.c_int
    return found
