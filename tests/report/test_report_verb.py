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


def test_a_page_is_made_without_torch(record: RunRecord, save: Callable[..., Path]):
    merged = record.model_copy(update={"recipe": record.recipe | {"merge": {"method": "linear"}}})
    code = "import sys; from pomona.report import write_report; write_report(sys.argv[1]); print('torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code, str(save(merged))], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"


def test_titles_of_merges_are_those_of_the_registry():
    from pomona.backbone.trainable import trainable_merges
    from pomona.merging import merge_methods
    from pomona.report.input_tables import MERGED_AS, trained_as

    assert set(MERGED_AS) <= {*merge_methods, *trainable_merges}
    for method in MERGED_AS:
        assert trained_as(method) == (trainable_merges[method].title if method in trainable_merges else "trained as one pair")
