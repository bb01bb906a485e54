"""What a record says of the machine: the commit of Pomona's own checkout, never that of the user's repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pomona.runs import environment

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def repository(folder: Path, hook: Path) -> str:
    """A repository with one commit, whose settings name a program that git would run; its commit."""
    hook.write_text(f"#!/bin/sh\ntouch {hook}.ran\n")
    hook.chmod(0o755)
    (folder / ".gitignore").write_text("")
    commands = (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "one"),
        ("config", "core.fsmonitor", str(hook)),
    )
    for command in commands:
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "core.fsmonitor=", "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("place", "project", "own"),
    [
        (".venv/lib/python3.11/site-packages/pomona/runs", "users-project", False),  # installed in a user's environment
        ("src/pomona/runs", "users-project", False),  # copied into a user's project
        ("src/pomona/runs", "pomona", True),
    ],
)
def test_the_commit_is_of_pomona_s_own_checkout(
    place: str, project: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, hook = tmp_path / "repository", tmp_path / "hook"
    code = root / place / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    (root / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    commit = repository(root, hook)
    monkeypatch.setattr(environment, "__file__", str(code))
    assert environment._commit() == (commit if own else None)
    code.write_text("changed")
    assert environment._commit() == (f"{commit}-dirty" if own else None)
    assert not Path(f"{hook}.ran").exists()
