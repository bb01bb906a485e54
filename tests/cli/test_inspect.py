from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.adapters.builders import Q0, random_adapter
from typer.testing import CliRunner

from pomona.adapters import Adapter, write_adapter
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
    cells = re.split(r"\s{2,}", row.strip())
    assert cells == [Q0, "20 x 12", "4", "1", f"{norm:.4g}", cells[5], "50.0%", "0.0%", "fp32"]
    assert 1 < float(cells[5]) <= 2  # half of the four rows of A are zero
    assert "4 modules, 512 parameters" in table.stdout

    result = json.loads(RUNNER.invoke(app, [str(tmp_path / "a"), "--json"]).stdout)
    assert result["modules"][0]["delta_norm"] == pytest.approx(norm, rel=1e-5)
    assert result["total"]["sparsity"] == 24 / 512


def test_padding_to_one_rank_is_reported_apart_from_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    wide, narrow = random_adapter(0), random_adapter(1, rank=1)
    first = Adapter({module: (narrow if module == Q0 else wide)[module] for module in wide})
    write_adapter(first, tmp_path / "a")
    shown = RUNNER.invoke(app, [str(tmp_path / "a")]).stdout
    (row,) = [line for line in shown.splitlines() if Q0 in line]
    assert re.split(r"\s{2,}", row.strip())[2] == "4 (3 padding)"
    assert "4 modules, 512 parameters (96 of them padding to one rank)" in shown
    assert shown.rstrip().endswith("zeros 0.0%")
    both = RUNNER.invoke(app, [str(tmp_path / "a"), str(tmp_path / "a")]).stdout
    assert "0.00 M (19% padding)" in both


def test_imports_nothing_heavy_before_it_is_needed() -> None:
    verbs = ", ".join(f"pomona.cli.{verb}" for verb in ("check", "inspect", "merge"))
    code = f"import sys, {verbs}; print({{'torch', 'transformers', 'safetensors'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "set()\n"


def test_several_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    one, two = random_adapter(0), random_adapter(1, modules=[Q0], rank=3)
    names = [str(tmp_path / name) for name in ("[red]a", "b")]  # a name that would be a colour if it were taken for markup
    for adapter, name in zip((one, two), names, strict=True):
        write_adapter(adapter, name)

    def norm(adapter: Adapter) -> float:
        return math.sqrt(sum(float(adapter.delta(module).square().sum()) for module in adapter))

    inner = float((one.delta(Q0) * two.delta(Q0)).sum())
    result = json.loads(RUNNER.invoke(app, [*names, "--json"]).stdout)
    assert [(adapter["path"], adapter["total"]["modules"]) for adapter in result["adapters"]] == [(names[0], 4), (names[1], 1)]
    (pair,) = result["pairs"]
    assert (pair["first"], pair["second"], pair["total"]["shared_modules"]) == (*names, 1)
    assert pair["total"]["cosine"] == pytest.approx(inner / norm(one) / norm(two), rel=1e-5)

    lines = RUNNER.invoke(app, names).stdout.splitlines()
    cells = re.split(r"\s{2,}", lines[2].strip())
    assert cells == [names[0], "base", "4", "0.00 M", "4", f"{norm(one):.4g}", cells[6], "0.0%", "fp32"]
    cells = re.split(r"\s{2,}", lines[-1].strip())
    figures = [f"{pair['total'][name]:.3f}" for name in ("cosine", "shared_cosine", "input_overlap", "output_overlap")]
    assert cells == [*names, "1", *figures]


def test_modules_of_two_shapes_are_told(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in "ab"]
    write_adapter(random_adapter(0), names[0])
    write_adapter(random_adapter(0, in_features=9), names[1])
    shown = RUNNER.invoke(app, names).stdout
    assert f"{names[0]} and {names[1]}: 4 modules are of one name and two shapes, and were not compared" in shown


def test_transformers_stays_where_it_is(tmp_path: Path) -> None:
    write_adapter(random_adapter(0), tmp_path / "a")
    code = (
        "import sys; from pomona.cli.main import app\n"
        f"app(['inspect', {str(tmp_path / 'a')!r}, {str(tmp_path / 'a')!r}, '--json'], standalone_mode=False)\n"
        "print({'transformers', 'peft', 'gguf'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "set()"
