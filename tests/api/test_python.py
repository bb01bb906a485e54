"""`import pomona` as a user meets it: names, types, records, progress."""

from __future__ import annotations

import ast
import builtins
import json
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.setting import QUICK, inside, make_setting, recipe, write_recipe

import pomona
from pomona.errors import InputError
from pomona.report import read_run
from pomona.runs.record import RunRecord
from pomona.tuning.progress import Display, Silent, shown

SOURCES = Path(pomona.__path__[0])
ROOT = SOURCES.parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("python"))
    write_recipe(folder / "quick.yaml", recipe(name="quick", **QUICK))
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> Iterator[RunRecord]:
    with inside(folder):
        yield pomona.adapt("quick.yaml")


def test_names_are_there_before_they_are_imported() -> None:
    code = "import pomona, sys; print(sorted(set(dir(pomona))), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{sorted([*pomona.__all__, '__version__'])} False"
    with pytest.raises(AttributeError, match="no attribute 'adpt'"):
        pomona.adpt  # pyright: ignore  # noqa: B018


def test_the_stub_names_what_can_be_imported() -> None:
    stub = ast.parse((SOURCES / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {one.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for one in node.names}
    listed = next(node.value for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(homes) == ast.literal_eval(listed) == pomona.__all__
    assert homes == vars(pomona)["_HOME"]
    for name in pomona.__all__:
        assert getattr(pomona, name).__doc__, name


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    told = {line.rpartition(".")[2].strip() for line in text.splitlines() if line.startswith(":::")}
    assert set(pomona.__all__) <= told


def test_the_wheel_says_that_it_is_typed() -> None:
    assert (SOURCES / "py.typed").is_file()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/pomona"]}  # whole: with the stub and the marker


def test_a_user_s_script_has_no_any(tmp_path: Path) -> None:
    """`mypy --strict` and no expression of type Any, with Pomona as an installed package: torch and the like are not followed."""
    others = "torch transformers numpy safetensors jaxtyping sacrebleu rich typer yaml huggingface_hub jinja2 gguf tokenizers"
    skipped = ",".join(f"{name}.*" for name in others.split())
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\ndisallow_any_expr = True\ncache_dir = {tmp_path / 'cache'}\nmypy_path = {SOURCES.parent}\n"
        "[mypy-pomona.*]\nfollow_imports = silent\n"
        f"[mypy-{skipped}]\nfollow_imports = skip\nignore_missing_imports = True\n"
    )
    scripts = [str(path) for path in sorted((ROOT / "examples").glob("*.py"))]
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *scripts]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"Success: no issues found in {len(scripts)} source files\n")


def test_adapt_takes_a_path_and_writes_report_and_card(folder: Path, record: RunRecord) -> None:
    assert record.folder == Path("runs/quick")
    assert (folder / "runs/quick/report.html").is_file()
    assert (folder / "runs/quick/adapter/README.md").is_file()
    assert pomona.adapt(str(folder / "quick.yaml"), "runs/quick", resume=True) == record


def test_a_record_is_ten_lines(record: RunRecord) -> None:
    lines = repr(record).splitlines()
    assert len(lines) <= 10
    assert lines[0] == "RunRecord 'quick', done: Summarization with model"
    assert "  sources      alpha, beta" in lines
    assert "  prune ratio  25%" in lines
    found = record.metrics["pomona"]["rouge_l"]
    assert f"  Pomona     rouge_l {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" in lines
    many = record.model_copy(update={"metrics": {f"system{n}": record.metrics["pomona"] for n in range(30)}})
    assert len(repr(many).splitlines()) == 10
    assert repr(many).splitlines()[-1].endswith("more systems")


def test_a_record_is_a_table_in_a_notebook(record: RunRecord) -> None:
    evil = record.model_copy(update={"name": "<script>"})
    page = evil._repr_html_()
    assert page.count("<tr>") == 1 + len(record.metrics)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_to_pandas(record: RunRecord) -> None:
    found = record.to_pandas()
    assert list(found.systems.index) == list(record.systems)
    assert found.systems.loc["pomona", "rouge_l_high"] == record.metrics["pomona"]["rouge_l"].high
    assert found.rounds.empty  # the ratio is given
    assert set(found.history["kind"]) == {"step", "epoch"}
    assert record.folder is not None
    lines = (record.folder / "history.jsonl").read_text().splitlines()
    assert list(found.history["kind"]) == [json.loads(line)["kind"] for line in lines]
    unplaced = RunRecord.model_validate_json(record.model_dump_json())
    assert unplaced.to_pandas().history.empty
    assert unplaced == record == read_run(record.folder).record


def test_functions_speak_python(folder: Path) -> None:
    with inside(folder):
        with pytest.raises(InputError, match=r"already exists\. Give another `output`, or resume=True to go on"):
            pomona.adapt("quick.yaml", "adapters/alpha")
        with pytest.raises(InputError, match=r"^target: unknown target \(got 'gguf'\)"):
            pomona.export("adapters/alpha", "gguf", "out")
        with pytest.raises(InputError, match=r"^system: only a conversation has .* Give `chat` too"):
            pomona.generate("a", model="model", system="b")
        with pytest.raises(InputError, match=r"^dtype: cannot be written"):
            pomona.export("adapters/alpha", "peft", "out", dtype="int8")


def test_inspect_and_check(folder: Path) -> None:
    with inside(folder):
        found = pomona.inspect("adapters/alpha", pomona.read_adapter("adapters/beta"))
        assert [one.total.modules for one in found.adapters] == [4, 6]
        assert found.adapters[0].modules[0].rank == 3
        assert found.pairs[0].total.shared_modules == 4
        checked = pomona.check("adapters/alpha", "quick.yaml", "none")
    assert not checked.ok
    assert repr(checked).startswith("Checked: not ok\n")
    assert [one.subject for one in checked.findings if one.level == "error"] == ["none"]
    assert list(checked.plans) == ["quick.yaml"]


class _Kernel:
    """Stands for IPython's shell in a notebook, by the name of its class."""


_Kernel.__name__ = "ZMQInteractiveShell"


def test_progress_in_a_notebook_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    with shown(None) as nothing:
        assert isinstance(nothing, Silent)
    seen: list[str] = []
    display = types.ModuleType("IPython.display")
    display.display = lambda found: seen.append(found._repr_mimebundle_([], [])["text/plain"])  # pyright: ignore
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(builtins, "get_ipython", _Kernel, raising=False)
    with shown(None) as progress:
        assert isinstance(progress, Display)
        progress.begin("training", 2)
        progress.ratio(0.25)
        progress.advance(1)
        progress.ratio(0.5)
        progress.end("done")
    told = "".join(seen)
    assert "training: 0 of 2" in told
    assert "prune ratio 50%" in told
    assert "IPython" not in (SOURCES / "tuning/progress.py").read_text()
    given = Silent()
    with shown(given) as same:
        assert same is given
