"""A page that follows a live run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pomona.cli.report import report
from pomona.errors import InputError
from pomona.folder_lock import FolderLock
from pomona.report.watch import watch
from pomona.runs.record import RunRecord

Save = Callable[..., Path]
RELOADS = "location.reload()"


@pytest.fixture
def running(record: RunRecord) -> RunRecord:
    empty = {"metrics": {}, "comparisons": [], "answer": None, "prune_ratio": None, "rounds": [], "modules": []}
    return record.model_copy(update={**empty, "status": "running"})


def test_the_page_follows_the_run_and_stops_with_it(record: RunRecord, running: RunRecord, save: Save) -> None:
    folder = save(running, steps=2, examples=1)
    lock = FolderLock(folder)
    lock.take()
    pages, told = [], []

    def pause(seconds: float) -> None:
        assert 0 < seconds <= 2
        pages.append((folder / "report.html").read_text(encoding="utf-8"))
        if len(pages) == 2:  # the run moved on; its last line is not written to its end
            with (folder / "history.jsonl").open("a", encoding="utf-8") as history:
                history.write(
                    json.dumps({"kind": "step", "system": "pomona", "step": 99, "epoch": 1, "loss": 2.5}) + '\n{"kind": "st'
                )
        if len(pages) == 3:
            save(record, steps=2, examples=1)
            lock.give_back()

    run = watch(folder, written=told.append, pause=pause)
    last = (folder / "report.html").read_text(encoding="utf-8")
    assert len(pages) == 3
    assert told == [folder / "report.html"]
    assert pages[0] == pages[1] != pages[2]
    assert all(RELOADS in page and "This run has not finished" in page for page in pages)
    assert run.record.status == "done"
    assert RELOADS not in last
    assert "Pomona merged 2 adapters" in last


def test_a_killed_run_is_not_followed_for_ever(running: RunRecord, save: Save) -> None:
    folder = save(running, steps=2, examples=1)
    run = watch(folder, pause=lambda seconds: pytest.fail("nobody holds the folder"))
    assert run.record.status == "running"
    assert RELOADS not in (folder / "report.html").read_text(encoding="utf-8")


def test_the_verb_prints_one_line_and_takes_one_run(record: RunRecord, save: Save) -> None:
    app = typer.Typer()
    app.command()(report)
    folder = save(record, steps=2, examples=1)
    result = CliRunner().invoke(app, [str(folder), "--watch"])
    assert (result.exit_code, result.output) == (0, f"{folder / 'report.html'}\n")
    two = CliRunner().invoke(app, [str(folder), str(folder), "--watch"])
    assert isinstance(two.exception, InputError)
    assert "one run is followed at a time" in str(two.exception)
