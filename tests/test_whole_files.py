"""Files that are whole or as before: when the writer fails, when the disk does, and what is forced to it in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pomona.whole_files import digest, sync_tree, whole_file, write_whole


def test_the_text_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    write_whole(path, "é\n")
    write_whole(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    write_whole(path, "before")
    with pytest.raises(ZeroDivisionError), whole_file(path) as scratch:
        scratch.write_text(f"half{1 / (scratch.write_text('ha') - 2)}")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("folder" if _is_folder(handle) else "file"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target))[1])
    write_whole(tmp_path / "b.json", "text")
    assert done == ["file", "rename", "folder"]


def _is_folder(handle: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{handle}")  # noqa: PTH112


def test_a_tree_is_forced_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").touch()
    (tmp_path / "two").touch()
    count: list[int] = []
    monkeypatch.setattr(os, "fsync", count.append)
    sync_tree(tmp_path)
    assert len(count) == 4


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
