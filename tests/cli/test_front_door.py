"""What every call passes: help, version, and no torch where names and arguments are all that is asked about."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import pytest
from tests.end_to_end.setting import call

import pomona
from pomona.cli.main import NAMED, VERBS
from pomona.cli.registered import ROOMS, ask_room, read_room, registered

SOURCES = Path(pomona.__path__[0])
ROOT = SOURCES.parents[1]
NAMES = [NAMED.get(verb, verb.__name__.replace("_", "-")) for verb in (*VERBS, *NAMED)]
CALLS_WITHOUT_TORCH = """
import contextlib, io, json, sys
from pomona.cli.main import main
found = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["pomona", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            found.append([end.code, out.getvalue(), err.getvalue()])
    assert "torch" not in sys.modules, arguments
print(json.dumps(found))
"""


def without_torch(calls: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of calls of the command in one process, which fails once torch is imported."""
    command = [sys.executable, "-c", CALLS_WITHOUT_TORCH, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]


def test_help_names_every_verb_with_its_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(tmp_path, "--help").out
    assert "..." not in shown.replace("[ARGS]...", "")
    assert max(map(len, shown.splitlines())) <= 80
    flat = " ".join(shown.split())
    for verb, name in zip((*VERBS, *NAMED), NAMES, strict=True):
        first = (verb.__doc__ or "").splitlines()[0]
        assert f"{name} {first}" in flat


def test_help_options_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in NAMES:
        shown = call(tmp_path, name, "--help")
        assert shown.code == 0
        assert max(map(len, shown.out.splitlines())) <= 80


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert pomona.__version__ == version
    shown = call(tmp_path, "--version")
    assert (shown.code, shown.out, shown.err) == (0, f"pomona {version}\n", "")


def test_python_m_pomona_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pomona", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pomona {pomona.__version__}\n"


def test_names_help_version_and_wrong_usage_need_no_torch() -> None:
    calls = [["list"], ["list", "--json"], ["--version"], [], ["--help"], *([name, "--help"] for name in NAMES)]
    assert {code for code, _, _ in without_torch(calls)} == {0}
    wrong = [["adapt"], ["merge", "a"], ["lst"], ["merge", "a", "-o", "b", "--rank", "x"], ["evaluate"], ["inspect", "--jason"]]
    wrong += [
        ["evaluate", "a.yaml", "--data", "b.jsonl"],
        ["evaluate", "a.yaml", "--task", "chat"],
        ["check", "a.yaml", "--base", "b"],
    ]
    wrong += [["generate", "a", "--system", "b"], ["generate", "a", "--stop", ""], ["merge", "--method", "ties"], ["report"]]
    assert [code for code, _, _ in without_torch(wrong)] == [2] * len(wrong)


@pytest.mark.parametrize("registry", ROOMS)
def test_what_is_read_from_the_sources_is_what_is_registered(registry: str) -> None:
    kind, entries = read_room(registry, ROOMS[registry])
    assert (kind, entries) == ask_room(registry, ROOMS[registry])
    assert list(entries) == sorted(entries)


STRONGEST = '''
from dataclasses import dataclass
from pomona.merging.base import MergeMethod, merge_methods
from pomona.merging.ties import Ties

{defined}
LEAST = 0.25

@merge_methods.register("strongest")
@dataclass(frozen=True)
class Strongest(Ties):
    """Take the strongest.

    More of it.
    """

    density: float = LEAST
    most: int{most}
'''


def copy_with_a_new_method(folder: Path, defined: str, most: str) -> Path:
    """The sources with one new file and one new line, as CONTRIBUTING says."""
    shutil.copytree(SOURCES, folder / "pomona", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pomona/merging/strongest.py").write_text(STRONGEST.format(defined=defined, most=most))
    line = "from pomona.merging.strongest import Strongest\n"
    with (folder / "pomona/merging/__init__.py").open("a") as package:
        package.write(line)
    return folder


def test_a_new_file_and_its_line_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pomona, "__path__", [str(copy_with_a_new_method(tmp_path, "", " = 3") / "pomona")])
    _, entries = read_room("merge_methods", "pomona.merging")
    assert entries["strongest"] == {
        "description": "Take the strongest.",
        "parameters": {"density": 0.25, "majority": "total", "on": "deltas", "most": 3},
    }


def test_a_file_that_nothing_imports_is_not_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = copy_with_a_new_method(tmp_path, "", " = 3")
    shutil.copy(SOURCES / "merging/__init__.py", sources / "pomona/merging/__init__.py")
    monkeypatch.setattr(pomona, "__path__", [str(sources / "pomona")])
    assert "strongest" not in read_room("merge_methods", "pomona.merging")[1]


@pytest.mark.parametrize(
    ("defined", "most"),
    [("def worked_out(): return 5", " = worked_out()"), ("if True:\n    again = merge_methods.register('again')", " = 1")],
    ids=["a default that is worked out", "a registration in another form"],
)
def test_what_cannot_be_read_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defined: str, most: str) -> None:
    """The room is imported then (here the true one, without the new method), which is slower and right."""
    monkeypatch.setattr(pomona, "__path__", [str(copy_with_a_new_method(tmp_path, defined, most) / "pomona")])
    kind, entries = ask_room("merge_methods", "pomona.merging")
    with mock.patch("pomona.cli.registered.ask_room", return_value=(kind, entries)) as asked:
        assert registered()[kind] == entries
    asked.assert_called_once_with("merge_methods", "pomona.merging")
