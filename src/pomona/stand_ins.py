"""What a file is instead of what its name says: a Git LFS pointer, a server's error page, nothing, a pickle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pomona.errors import InputError

_LONGEST_POINTER = 1024  # bytes; a Git LFS pointer has fewer, so larger files need not be opened
_HEAD = 64
_GIT_LFS = b"version https://git-lfs"
_DOWNLOAD = "Download it again, and look at what the server sent"


def refuse_stand_in(file: Path, head: bytes) -> None:
    """Refuse a file that is something else altogether.

    Args:
        file: its path, for the message.
        head: its first bytes; 64 are enough.

    Raises:
        InputError: a Git LFS pointer, an HTML or XML page, a pickle or archive of torch, a GGUF file, or nothing.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(_GIT_LFS):
        problem, fix = "is a Git LFS pointer and not the file itself", "Run `git lfs pull` in its repository, or download it again"
    elif not head:
        problem, fix = "is empty", "Copy it again from its source"
    elif text.startswith((b"<!doctype html", b"<html")):
        problem, fix = "is an HTML page, as a server sends it in place of a file", _DOWNLOAD
    elif text.startswith(b"<?xml"):
        problem, fix = "is an XML page, as a server sends it in place of a file", _DOWNLOAD
    elif head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        problem = "is a pickle or an archive of pickles, which can run code and is never opened"
        fix = "Where you trust it, name it adapter_model.bin and run pomona convert FOLDER --output DIR"
    elif head.startswith(b"GGUF"):
        problem, fix = "is a GGUF file, the format of llama.cpp", "Give the PEFT folder that it was made of"
    else:
        return
    raise InputError(problem, file=file, fix=fix)


def refuse_pointer(file: Path, head: bytes) -> None:
    """Refuse a Git LFS pointer alone, where anything else may be meant.

    Raises:
        InputError: it is one.
    """
    if head.startswith(_GIT_LFS):
        refuse_stand_in(file, head)


def refuse_pointers(folder: Path, files: Iterable[Path] | None = None) -> None:
    """Refuse a folder in which a file is a Git LFS pointer, as after a clone without `git lfs`.

    Args:
        folder: where to look, not in its subfolders.
        files: those to look at; None: all.

    Raises:
        InputError: names the first of them.
    """
    for file in sorted(folder.iterdir() if files is None else files):
        if file.is_file() and file.stat().st_size <= _LONGEST_POINTER:
            with file.open("rb") as stream:
                refuse_pointer(file, stream.read(_HEAD))
