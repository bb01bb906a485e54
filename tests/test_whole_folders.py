"""What is written is whole or not at all, and what killed writers leave behind goes at the next start."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import pomona.whole_folders as whole_module
from pomona.errors import InputError
from pomona.whole_folders import remove_leftovers, whole_folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def in_a_process_that_is_killed(work: Callable[[], object]) -> None:
    """Do the work in a child, which kills itself where the work does not."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="b: cannot be written: No space left"), whole_folder(tmp_path / "b"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "b"):
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:
        monkeypatch.setattr(whole_module, "_renameat2", lambda: None)
    for content in ("one", "two"):
        with whole_folder(tmp_path / "a") as partial:
            (partial / content).touch()
    assert names(tmp_path) == {"a"}
    assert names(tmp_path / "a") == {"two"}


@pytest.mark.parametrize("moment", ["sync_tree", "_put_in_place", "_exchange", "sync"])
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_at_any_moment_leaves_a_whole_folder_or_one_that_comes_back(tmp_path: Path, moment: str, exchanges: bool) -> None:
    with whole_folder(tmp_path / "a") as partial:
        (partial / "one").touch()

    def replace() -> None:
        with whole_folder(tmp_path / "a") as partial:
            (partial / "two").touch()
            if not exchanges:
                setattr(whole_module, "_renameat2", lambda: None)  # noqa: B010
            if moment == "_exchange" and not exchanges:
                setattr(Path, "rename", killed_after_moving_aside)  # noqa: B010 (the moment without a name)
            else:
                setattr(whole_module, moment, killed)

    rename = Path.rename

    def killed_after_moving_aside(self: Path, target: Path) -> Path:
        if self.parent.name.endswith(".partial") and not (tmp_path / "a").exists():
            killed()
        return rename(self, target)

    in_a_process_that_is_killed(replace)
    remove_leftovers(tmp_path, "another name")
    if exchanges:
        assert (tmp_path / "a").exists()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"a"}
    assert names(tmp_path / "a") in ({"one"}, {"two"})


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "b"):
        writing = names(tmp_path)
        assert len(writing) == 1
        others = {".mine.partial", ".a.0123abcd.part", "b.0123abcd.partial"}  # not names of ours
        for name in others:
            (tmp_path / name).mkdir()
        remove_leftovers(tmp_path)
        assert names(tmp_path) == writing | others
