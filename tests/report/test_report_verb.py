from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pomona.cli.report import report
from pomona.errors import InputError
from pomona.runs.record import RunRecord

app = typer.Typer()
app.command()(report)


def test_the_verb_writes_each_page_and_prints_its_path(record: RunRecord, save: Callable[..., Path], tmp_path: Path):
    first = save(record)
    second = first.rename(tmp_path / "other")
    first = save(record)
    result = CliRunner().invoke(app, [str(first), str(second)])
    assert result.exit_code == 0
    assert result.output.split() == [str(first / "report.html"), str(second / "report.html")]
    assert all(Path(line).is_file() for line in result.output.split())


def test_wrong_input_is_left_to_the_front_door(tmp_path: Path):
    result = CliRunner().invoke(app, [str(tmp_path / "nowhere")])
    assert isinstance(result.exception, InputError)


@pytest.mark.parametrize("module", ["pomona.report", "pomona.cli.report"])
def test_importing_the_room_is_light(module: str):
    heavy = {"jinja2", "torch", "transformers"} | ({"pydantic"} if module == "pomona.cli.report" else set())
    code = f"import sys, {module}; print(sorted({heavy!r} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
