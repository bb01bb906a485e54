"""A reader who follows a how-to page to the letter adds a component that its registry finds and that passes its conformance suite.

The examples are tried in a fork of this process, which has imported what the suites need. There each package has the new file, the
line of its `__init__.py` is imported, and every test that has a component's name is run.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import torch
from tests.docs.how_to import SUITES, examples

from pomona.cli.registered import ROOMS
from pomona.registry import Registry

ROOT = Path(__file__).parents[2]
SAID, OUTCOMES = "said.txt", "outcomes.json"
OF_ALL = re.compile("all_together|any_document|parse_takes|reference_names")
"""Tests that run over all components at once."""
EXAMPLES = {example.kind: example for example in examples(ROOT)}


def test_every_kind_has_an_example() -> None:
    """All that `pomona list` names but baselines, which are part of what a run is; and speed-ups, which no recipe names."""
    kinds = set(ROOMS.values()) - {"pomona.evaluation"} | {"pomona.backbone.speed"}
    assert {f"pomona.{kind.replace('/', '.')}" for kind in EXAMPLES} == kinds
    assert EXAMPLES.keys() == SUITES.keys()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with every example in them."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for example in EXAMPLES.values():
        for path, text in (example.module, *example.tests.items()):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        package = folder / example.package
        package.write_text(package.read_text(encoding="utf-8") + example.line, encoding="utf-8")
    return folder


def test_the_command_lists_what_the_examples_add(checkout: Path) -> None:
    path = {"PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-m", "pomona", "list", "--json"]
    done = subprocess.run(command, env=os.environ | path, cwd=checkout, capture_output=True, text=True, check=True)
    listed = {name: entry for entries in json.loads(done.stdout).values() for name, entry in entries.items()}
    named = [example.name for example in EXAMPLES.values() if example.kind != "backbone/speed"]
    assert [len(listed[name]["description"]) > 20 for name in named] == [True] * (len(EXAMPLES) - 1)


def test_the_examples_are_written_in_the_house_style(checkout: Path) -> None:
    files = [file for example in EXAMPLES.values() for file in (example.module[0], *example.tests)]
    for command in (["check"], ["format", "--diff"]):
        ruff = [Path(sys.executable).with_name("ruff"), *command, "--no-cache", *files]
        done = subprocess.run(ruff, cwd=checkout, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", SUITES)
def test_an_example_touches_one_new_file_and_one_line_of_the_sources(kind: str) -> None:
    """Its tests are new files; nothing else changes."""
    example = EXAMPLES[kind]
    path, _ = example.module
    assert not (ROOT / path).exists()
    assert example.package == str(PurePosixPath(path).parent / "__init__.py")
    assert re.fullmatch(r"from [\w.]+ import \w+\n", example.line)
    assert example.tests
    assert not any((ROOT / test).exists() for test in example.tests)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every test that was run over the examples -> how it ended."""
    folder = tmp_path_factory.mktemp("examples")
    # Imported here, where other tests of this process need it too, and not in the fork alone.
    importlib.import_module("transformers.models.llama.modeling_llama")
    process = os.fork()
    if not process:
        os._exit(follow(folder))
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), (folder / SAID).read_text()
    return json.loads((folder / OUTCOMES).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", SUITES)
def test_an_example_passes_its_conformance_suite(kind: str, outcomes: dict[str, str]) -> None:
    """Also each test that runs over all components at once, whose name has none of theirs."""
    name = EXAMPLES[kind].name
    own = {test: outcome for test, outcome in outcomes.items() if name in test}
    for test, outcome in outcomes.items():
        assert outcome in ("passed", "skipped") or not (test in own or OF_ALL.search(test)), f"{test}: {outcome}"
    assert sum(outcome == "passed" for outcome in own.values()) >= (2 if kind == "backbone/speed" else 10)


class Outcomes:
    """A plugin that keeps how each test ended."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a test's three phases the worst, and its error."""
        if report.when == "call" or report.outcome != "passed":
            self.found[report.nodeid] = report.outcome if report.outcome != "failed" else report.longreprtext[-2000:]


def follow(folder: Path) -> int:
    """Write each example's files, import its line, and run the tests over the registries; pytest's exit code."""
    with (folder / SAID).open("w", encoding="utf-8") as sys.stdout:
        torch.set_num_threads(1)
        tests = {str(ROOT / suite) for suites in SUITES.values() for suite in suites} | {str(ROOT / "tests/docs/test_documents.py")}
        for example in EXAMPLES.values():
            package = importlib.import_module(f"pomona.{example.kind.replace('/', '.')}")
            for path, text in (example.module, *example.tests.items()):
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            package.__path__.append(str((folder / example.module[0]).parent))
            exec(example.line)
            assert any(isinstance(one, Registry) and example.name in one for one in vars(package).values())
            tests |= {str(folder / path) for path in example.tests}
        for name in [name for name in sys.modules if name.startswith("tests.") and name != __name__]:
            del sys.modules[name]  # they have asked for the registries' names already
        selected = " or ".join([*(example.name for example in EXAMPLES.values()), *OF_ALL.pattern.split("|")])
        selected = f"({selected}) and not gemma3 and not qwen2 and not gpt2"  # one architecture is enough here
        options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
        outcomes = Outcomes()
        code = pytest.main([*options, "-o", "addopts=--import-mode=importlib", "-k", selected, *sorted(tests)], plugins=[outcomes])
        (folder / OUTCOMES).write_text(json.dumps(outcomes.found), encoding="utf-8")
    return int(code)
