from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.adapters.builders import Q0, random_adapter
from typer.testing import CliRunner

from pomona.adapters import write_adapter
from pomona.cli.inspect import inspect

app = typer.Typer()
app.command()(inspect)
RUNNER = CliRunner()


def test_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    adapter = random_adapter(0)
    adapter[Q0].A[:2] = 0.0
    write_adapter(adapter, tmp_path / "a")
    norm = float(adapter.delta(Q0).norm())

    table = RUNNER.invoke(app, [str(tmp_path / "a")])
    assert table.exit_code == 0, table.output
    (row,) = [line for line in table.stdout.splitlines() if Q0 in line]
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells == [Q0, "20 x 12", "4", "1", f"{norm:.4g}", "50.0%", "0.0%", "float32"]
    assert "4 modules, 512 parameters" in table.stdout

    result = json.loads(RUNNER.invoke(app, [str(tmp_path / "a"), "--json"]).stdout)
    assert result["modules"][0]["delta_norm"] == pytest.approx(norm, rel=1e-5)
    assert result["total"]["sparsity"] == 24 / 512


def test_imports_nothing_heavy_before_it_is_needed() -> None:
    verbs = ", ".join(f"pomona.cli.{verb}" for verb in ("check", "inspect", "merge"))
    code = f"import sys, {verbs}; print({{'torch', 'transformers', 'safetensors'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "set()\n"
