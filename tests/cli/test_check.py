from __future__ import annotations

import json
from pathlib import Path

import typer
from tests.adapters.builders import peft_config, write_folder
from typer.testing import CliRunner

from pomona.cli.check import check

app = typer.Typer()
app.command()(check)
RUNNER = CliRunner()


def test_good_adapters(tmp_path: Path) -> None:
    folders = [str(write_folder(tmp_path / name)) for name in "ab"]
    result = RUNNER.invoke(app, folders)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"ok: {folder}: 4 modules, all values finite, trained on base" for folder in folders]


def test_an_error_is_exit_two_and_every_finding_is_told(tmp_path: Path) -> None:
    good, bad = write_folder(tmp_path / "good"), write_folder(tmp_path / "bad", config=peft_config(use_dora=True))
    result = RUNNER.invoke(app, [str(bad), str(good)])
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"error: {bad}/adapter_config.json: use_dora: ")
    assert lines[1].startswith(f"ok: {good}: ")
    told = json.loads(RUNNER.invoke(app, [str(bad), str(good), "--json"]).stdout)
    assert told["ok"] is False
    assert [finding["level"] for finding in told["findings"]] == ["error", "ok"]
