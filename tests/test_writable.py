"""Whether a place can be written is known before any long work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pomona.errors import InputError
from pomona.writable import check_writable


@pytest.mark.parametrize("name", ["new", "deep/new", "there"])
def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    check_writable(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("file/run", r"cannot be written: .*file is not a folder"),
        ("x" * 300, "cannot be written: File name too long"),
        (os.fsdecode(b"caf\xe9"), "its name is not UTF-8"),
        ("/proc/nowhere", "cannot be written: No such file"),
    ],
)
def test_a_place_that_cannot_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=problem):
        check_writable(tmp_path / name)
