"""Write the page of a run again whenever the run has moved on, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pomona.folder_lock import is_locked
from pomona.report.html_file import write_page
from pomona.report.page import render
from pomona.report.read import RunFolder, read_run

RELOAD_SECONDS = 3
"""How often the page loads itself again while it is watched."""

_FILES = ("record.json", "history.jsonl", "predictions.jsonl")


def watch(
    run_folder: Path | str, *, written: Callable[[Path], None] = lambda page: None, pause: Callable[[float], None] = time.sleep
) -> RunFolder:
    """Follow a run: its page is written again when a file of the run changes, and loads itself again in the browser.

    It ends when the run is done, has failed, was interrupted, or when no process holds its folder any more. The last page does not
    reload.

    Args:
        run_folder: a run folder, finished or not.
        written: called once, with the page's path, when the page is there.
        pause: waits the given seconds between two looks.

    Returns:
        The run as it ended.

    Raises:
        InputError: the folder cannot be read (see `read_run`) or written.
    """
    folder, seen, first = Path(run_folder), None, True
    while True:
        live = is_locked(folder)  # before the files are read, so that a run that ends between the two is read as it ended
        stamp = [_stamp(folder / name) for name in _FILES]
        if stamp != seen or not live:
            seen, run = stamp, read_run(folder)
            live = live and run.record.status == "running"
            page = write_page(run.path, render(run, reload_seconds=RELOAD_SECONDS if live else 0))
            if first:
                written(page)
            first = False
            if not live:
                return run
        pause(1.0)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
