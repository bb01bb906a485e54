"""One run or experiment to a folder, whatever the number of its processes: the first of them holds the lock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pomona.engines import NATIVE
from pomona.folder_lock import FolderLock


@contextlib.contextmanager
def alone(lock: FolderLock, check: Callable[[], None]) -> Iterator[None]:
    """Within the block no other run writes into the folder. It may be entered again within itself.

    Args:
        lock: of the folder.
        check: refuses what another run has made there since the folder was looked at.

    Raises:
        InputError: another process is at work in the folder; the disk refuses; whatever `check` raises.
    """
    NATIVE.on_main(lock.take)
    try:
        NATIVE.on_main(check)
        yield
    finally:
        if NATIVE.is_main:  # without the others: one that failed must not wait for them
            lock.give_back()
