"""No network that was not asked for, no secret in what is written, nothing that others can read meanwhile."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.adapters.builders import write_folder
from tests.end_to_end import setting
from tests.end_to_end.setting import call, make_setting, write_recipe

from pomona.whole_folders import whole_folder

SECRETS = {
    "HF_TOKEN": "hf_plantedTokenOfTheHub0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_plantedOlderToken0123456789",
    "WANDB_API_KEY": "plantedKeyOfATracker0123456789",
    "AWS_SECRET_ACCESS_KEY": "plantedKeyOfACloud0123456789",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run with secrets in its environment, and all that was printed."""
    folder = make_setting(tmp_path_factory.mktemp("trust"))
    given = setting.recipe(controller={"name": "fixed", "prune_ratio": 0.3}, tuning={"epochs": 1, "batch_size": 8})
    write_recipe(folder / "one.yaml", given)
    plain = setting.environment
    with mock.patch.object(setting, "environment", lambda folder: plain(folder) | SECRETS):
        done = call(folder, "adapt", "one.yaml", "--output", "run", "--set", "evaluation.baselines=[zero_shot]")
        failed = call(folder, "--debug", "adapt", "one.yaml", "--output", "other", "--set", "data.train=gone.jsonl")
        shown = call(folder, "env", "--json")
    assert (done.code, failed.code, shown.code) == (0, 2, 0), (done, failed)
    return folder, "".join(one.out + one.err for one in (done, failed, shown))


def test_a_token_is_in_nothing_that_a_run_writes(run: tuple[Path, str]) -> None:
    folder, printed = run
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"record.json", "report.html", "README.md", "adapter_config.json", "history.jsonl"} <= {path.name for path in files}
    for secret in SECRETS.values():
        assert secret not in printed
        for path in files:
            assert secret.encode() not in path.read_bytes(), path


@pytest.fixture
def no_network() -> Iterator[list[Any]]:
    """Whoever connects or looks up a name is noted, and refused."""
    asked: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch("socket.getaddrinfo", refuse),
        mock.patch("socket.create_connection", refuse),
    ):
        yield asked


def test_no_verb_connects_without_a_hub_id(no_network: list[Any], tmp_path: Path) -> None:
    """Also where the settings would allow it."""
    plain = setting.environment
    online = lambda folder: {name: value for name, value in plain(folder).items() if name != "HF_HUB_OFFLINE"}  # noqa: E731
    folder = make_setting(tmp_path / "it")
    write_folder(folder / "foreign", config=None)
    with mock.patch.object(setting, "environment", online), mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", False):
        for arguments in (
            ("inspect", "adapters/alpha"),
            ("check", "adapters/alpha", "adapters/beta", "--base", "model"),
            ("check", "small.yaml", "--no-trial"),
            ("merge", "adapters/alpha", "adapters/beta", "-o", "merged"),
            ("generate", "x", "--model", "model", "-a", "adapters/alpha", "--max-new-tokens", "2"),
            ("generate", "x", "--adapter", "foreign"),
            ("export", "adapters/alpha", "--for", "merged", "--base", "model", "-o", "whole"),
            ("env",),
            ("list",),
        ):
            assert call(folder, *arguments).code in {0, 2}
    assert no_network == []


def test_temporary_folders_are_their_owner_s_alone(tmp_path: Path) -> None:
    made: list[Path] = []
    real = tempfile.mkdtemp

    def noted(*arguments: Any, **options: Any) -> str:
        made.append(Path(real(*arguments, **options)))
        assert stat.S_IMODE(made[-1].stat().st_mode) == 0o700
        return str(made[-1])

    write_folder(tmp_path / "adapter")
    before = os.umask(0)
    try:
        with mock.patch("tempfile.mkdtemp", noted):
            assert call(tmp_path, "convert", "adapter", "--output", "converted").code == 0
    finally:
        os.umask(before)
    assert made
    assert not any(path.exists() for path in made)


def test_a_folder_that_is_not_whole_yet_is_its_owner_s_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with whole_folder(tmp_path / "made") as partial:
            assert stat.S_IMODE(partial.parent.stat().st_mode) == 0o700
            (partial / "file").write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
