from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from tests.adapters.builders import exact_delta, random_adapter
from typer.testing import CliRunner

from pomona.adapters import read_adapter, write_adapter
from pomona.cli.merge import merge
from pomona.errors import InputError

app = typer.Typer()
app.command()(merge)
RUNNER = CliRunner()


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for seed, name in enumerate("ab"):
        write_adapter(random_adapter(seed), tmp_path / name)
    return [str(tmp_path / name) for name in "ab"]


def test_merge_writes_an_adapter(folders: list[str], tmp_path: Path) -> None:
    output = tmp_path / "c"
    result = RUNNER.invoke(
        app, [*folders, "--method", "svd", "--weights", "-1,0.5", "--rank", "8", "--output", str(output), "--json"]
    )
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    assert (done["method"], done["weights"], done["rank"], done["modules"], done["warnings"]) == ("svd", [-1.0, 0.5], 8, 4, [])
    merged = read_adapter(output)
    sources = [read_adapter(folder) for folder in folders]
    for module in merged:
        expected = exact_delta(sources, [-1.0, 0.5], module)
        torch.testing.assert_close(merged[module].delta(torch.float64), expected, rtol=1e-5, atol=1e-5)


def test_a_line_for_people_and_warnings_on_stderr(folders: list[str], tmp_path: Path) -> None:
    write_adapter(random_adapter(2, base_model="other"), tmp_path / "x")
    result = RUNNER.invoke(app, [folders[0], str(tmp_path / "x"), "--method", "concat", "-o", str(tmp_path / "c")])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"2 adapters merged by concat: 4 modules of rank 8, in {tmp_path / 'c'}\n"
    assert result.stderr.startswith("warning: ")
    assert "'other'" in result.stderr


def test_existing_output_needs_force(folders: list[str], tmp_path: Path) -> None:
    command = [*folders, "--output", str(tmp_path / "c")]
    assert RUNNER.invoke(app, command).exit_code == 0
    refused = RUNNER.invoke(app, command)
    assert isinstance(refused.exception, InputError)
    assert "already exists" in str(refused.exception)
    assert RUNNER.invoke(app, [*command, "--force"]).exit_code == 0


@pytest.mark.parametrize(
    ("weights", "part"), [("1,x", "with commas between"), ("1", "2 adapters need 2 weights"), ("nan,1", "finite")]
)
def test_bad_weights(folders: list[str], tmp_path: Path, weights: str, part: str) -> None:
    result = RUNNER.invoke(app, [*folders, "--weights", weights, "--output", str(tmp_path / "c")])
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "c").exists()
