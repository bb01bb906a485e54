"""Whether a file or folder can be written, asked before long work."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pomona.errors import InputError


def check_writable(target: Path) -> None:
    """Try to write where the target will be; nothing is left.

    The nearest folder that exists is tried: the target itself, or the one in which the missing folders will be made.

    Raises:
        InputError: the disk refuses, a file stands where a folder must be made, or the name is not UTF-8.
    """
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise InputError("its name is not UTF-8", file=target, fix="Choose another name") from error
    try:
        for folder in (target, *target.absolute().parents):
            if folder.is_dir():
                break
            if folder.exists() and folder != target:
                raise InputError(f"cannot be written: {folder} is not a folder", file=target, fix="Choose another folder")
        else:
            return
        target.with_name(f".{target.name}.00000000.partial").exists()  # a name that is too long
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target, fix="Choose another folder") from error
