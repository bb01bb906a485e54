from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from tests.adapters.builders import Q0, Q1, V0, V1, exact_delta, random_adapter
from typer.testing import CliRunner

from pomona.adapters import read_adapter, write_adapter
from pomona.cli.merge import merge
from pomona.errors import InputError
from pomona.merging import merge as merge_adapters

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
    assert result.stdout == f"2 adapters merged by concat: 4 modules of rank 8, in {tmp_path / 'c'}\nNothing is lost to the rank\n"
    assert result.stderr.startswith("warning: ")
    assert "'other'" in result.stderr


def test_what_the_rank_lost_has_a_line_a_warning_and_a_place_in_the_json(folders: list[str], tmp_path: Path) -> None:
    command = [*folders, "--method", "ties", "--rank", "4", "--force", "-o", str(tmp_path / "c")]
    said = RUNNER.invoke(app, command)
    assert said.exit_code == 0, said.output
    done = json.loads(RUNNER.invoke(app, [*command, "--json"]).stdout)
    lost = json.loads((tmp_path / "c" / "pomona.json").read_text())["rank_loss"]
    assert done["rank_loss"] == lost
    assert 0.1 < lost["relative"] <= lost["worst"] < 1
    line = said.stdout.splitlines()[1]
    expected = f"{100 * lost['relative']:.3g}% of the merged update; at worst {100 * lost['worst']:.3g}%, at {lost['worst_module']}"
    assert line == f"Keeping rank 4 lost {expected}"
    assert said.stderr.startswith(f"warning: the merge lost {100 * lost['relative']:.3g}% of its update to rank 4; rank ")
    assert done["warnings"] == [said.stderr.removeprefix("warning: ").rstrip("\n")]


def test_existing_output_needs_force(folders: list[str], tmp_path: Path) -> None:
    command = [*folders, "--output", str(tmp_path / "c")]
    assert RUNNER.invoke(app, command).exit_code == 0
    refused = RUNNER.invoke(app, command)
    assert isinstance(refused.exception, InputError)
    assert "already exists" in str(refused.exception)
    assert RUNNER.invoke(app, [*command, "--force"]).exit_code == 0


@pytest.mark.parametrize(
    ("weights", "part"),
    [
        ("1,x", r"weights[1]: must be a number (got 'x')"),
        ("1,{", "--weights: cannot be read"),
        ("1", "2 adapters need 2 weights"),
        ("nan,1", "finite"),
        ("1,[{filter: nowhere, value: 1}]", "no entry's filter matches a module"),
    ],
)
def test_bad_weights(folders: list[str], tmp_path: Path, weights: str, part: str) -> None:
    result = RUNNER.invoke(app, [*folders, "--weights", weights, "--output", str(tmp_path / "c")])
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "c").exists()


def test_weights_by_depth_and_by_module(folders: list[str], tmp_path: Path) -> None:
    output = tmp_path / "c"
    weights = "[0,1],[{filter: q_proj, value: 0.5}, {value: -1}]"
    result = RUNNER.invoke(app, [*folders, "--method", "concat", "--weights", weights, "--output", str(output)])
    assert result.exit_code == 0, result.output
    merged, sources = read_adapter(output), [read_adapter(folder) for folder in folders]
    expected = {Q0: (0.0, 0.5), V0: (0.0, -1.0), Q1: (1.0, 0.5), V1: (1.0, -1.0)}
    for module, used in expected.items():
        torch.testing.assert_close(merged[module].delta(torch.float64), exact_delta(sources, used, module), rtol=1e-6, atol=1e-6)


def test_weights_by_the_norms_of_the_updates(folders: list[str], tmp_path: Path) -> None:
    output = tmp_path / "c"
    result = RUNNER.invoke(app, [*folders, "--method", "concat", "--weights", "nan", "--output", str(output), "--json"])
    assert result.exit_code == 0, result.output
    told, sources = json.loads(result.stdout), [read_adapter(folder) for folder in folders]
    norms = [torch.cat([one.delta(module).flatten() for module in one]).norm().item() for one in sources]
    used = [2 / (1 / norms[0] + 1 / norms[1]) / norm for norm in norms]
    assert told["weight_rule"] == "nan"
    assert told["weights"] == pytest.approx(used, rel=1e-5)
    delta = read_adapter(output)[V1].delta(torch.float64)
    torch.testing.assert_close(delta, exact_delta(sources, used, V1), rtol=1e-4, atol=1e-5)


def test_parameters_and_dtype(folders: list[str], tmp_path: Path) -> None:
    command = [*folders, "--method", "ties", "--set", "density=1e-1", "--set", "on=factors", "--dtype", "bfloat16", "--json"]
    result = RUNNER.invoke(app, [*command, "--output", str(tmp_path / "c")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["parameters"] == {"density": 0.1, "on": "factors"}
    merged = read_adapter(tmp_path / "c")
    assert {merged[module].A.dtype for module in merged} == {torch.bfloat16}
    exact = merge_adapters([read_adapter(folder) for folder in folders], "ties", density=0.1, on="factors")
    assert torch.equal(merged[Q0].B, exact[Q0].B.to(torch.bfloat16))
    assert json.loads((tmp_path / "c" / "pomona.json").read_text())["method"] == "ties"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--set", "densty=1", "--method", "ties"], "Did you mean 'density'"),
        (["--set", "density=2", "--method", "ties"], "density: must be in (0, 1] (got 2)"),
        (["--set", "density=-1e-3", "--method", "ties"], "density: must be in (0, 1] (got -0.001)"),
        (["--set", "rank=3"], "no parameter 'rank'"),
        (["--dtype", "int8"], "--dtype"),
    ],
)
def test_bad_parameters(folders: list[str], tmp_path: Path, options: list[str], part: str) -> None:
    result = RUNNER.invoke(app, [*folders, *options, "--output", str(tmp_path / "c")])
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "c").exists()
