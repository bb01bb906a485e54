"""One writer to a folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pomona.errors import InputError
from pomona.whole_files import SCRATCH

try:
    import fcntl
except ImportError:  # not a POSIX system, so folders are not locked there
    fcntl = None

LOCK = ".lock"
"""The file in the folder that a process holds; it names the process, and goes when the process is through."""


class FolderLock:
    """The right to write into a folder; a context manager. Its holder may take it several times, and gives it back as often.

    Args:
        folder: made when the lock is taken, where it does not stand yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._held, self._handle = folder, 0, -1

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take(self) -> None:
        """Take the lock.

        Raises:
            InputError: another process has it; the disk refuses.
        """
        if self._held == 0:
            self._take()
        self._held += 1

    def give_back(self) -> None:
        """Give the lock back, as often as it was taken; then others may take it."""
        self._held -= 1
        if self._held == 0 and self._handle >= 0:
            (self._folder / LOCK).unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1

    def _take(self) -> None:
        if fcntl is None:
            return
        path = self._folder / LOCK
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
                    os.close(handle)
                    raise InputError(
                        f"{holder} is writing into this folder", file=self._folder, fix="Wait for its end, or give another --output"
                    ) from None
                if _is_at(path, handle):
                    break
                os.close(handle)  # its holder has removed it since it was opened
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", file=self._folder) from error
        self._handle = handle


def is_locked(folder: Path) -> bool:
    """Whether a living process writes into the folder; False where that cannot be known."""
    if fcntl is None:
        return False
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def holds_nothing(folder: Path) -> bool:
    """Whether there is nothing in a folder but what a killed process left before its first file was whole."""
    return folder.is_dir() and all(_is_left(path.name) for path in folder.iterdir())


def _is_left(name: str) -> bool:
    return name == LOCK or (name.startswith(".") and name.endswith(SCRATCH))


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
