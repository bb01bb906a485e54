"""One writer to a folder: among processes, after a kill, and while locks come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pomona.errors import InputError
from pomona.folder_lock import LOCK, FolderLock, holds_nothing, is_locked

HOLDER = """
import sys
from pathlib import Path
from pomona.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked(folder)
    with (
        pytest.raises(InputError, match=rf"run: process {holder.pid} on .* is writing into this folder\. Wait"),
        FolderLock(folder),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert (folder / LOCK).exists()
    assert not is_locked(folder)
    with FolderLock(folder):
        assert (folder / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert list(folder.iterdir()) == []


def test_it_is_given_back_as_often_as_it_was_taken(tmp_path: Path) -> None:
    lock, other = FolderLock(tmp_path), FolderLock(tmp_path)
    with lock:
        with lock:
            pass
        with pytest.raises(InputError, match="is writing into this folder"):
            other.take()
    with other:
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_a_lock_that_was_removed_while_another_opened_it_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a process's opening of the file and its lock, the holder gives back, which removes the file."""
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    real, opened = os.open, []

    def open_then_give_back(path: object, *rest: object) -> int:
        handle = real(path, *rest)  # pyright: ignore[reportArgumentType, reportCallIssue]
        opened.append(handle)
        if len(opened) == 1:
            first.give_back()
        return handle

    monkeypatch.setattr(os, "open", open_then_give_back)
    second.take()
    monkeypatch.undo()
    assert len(opened) == 2
    with pytest.raises(InputError, match="is writing"):
        first.take()
    second.give_back()


def test_what_a_kill_leaves_before_the_first_file_is_nothing(tmp_path: Path) -> None:
    assert holds_nothing(tmp_path)
    (tmp_path / LOCK).touch()
    (tmp_path / ".recipe.yaml.writing").touch()
    assert holds_nothing(tmp_path)
    (tmp_path / "notes").touch()
    assert not holds_nothing(tmp_path)
    assert not holds_nothing(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="run: cannot be written"):
        FolderLock(tmp_path / "file" / "run").take()
