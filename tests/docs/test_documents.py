"""The documents say what is true: links lead somewhere, commands and recipes parse, the worked example works."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from pomona.cli.main import app
from pomona.control import controllers
from pomona.merging import merge_methods
from pomona.runs.experiments.recipe import Experiment
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Recipe, TrainRecipe
from pomona.runs.record import RunRecord

ROOT = Path(__file__).parents[2]
GENERATED = {ROOT / "docs/reference" / f"{name}.md" for name in ("commands", "recipe", "record", "registries")}
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
COMMAND: Any = typer.main.get_command(app)

_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_BLOCK = re.compile(r"^(?:<!-- (?P<mark>[\w-]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_RECIPES = {"recipe": Recipe, "train-recipe": TrainRecipe}


def blocks(document: Path, language: str) -> Iterator[tuple[str | None, str]]:
    """(mark, text) of each fenced block; `<!-- mark -->` stands on the line above."""
    for match in _BLOCK.finditer(document.read_text(encoding="utf-8")):
        if match["language"] == language:
            yield match["mark"], match["text"]


def command_lines(document: Path) -> list[list[str]]:
    """The arguments of every `pomona VERB ...`, in blocks and in running text."""
    shell = "".join(text for _, text in blocks(document, "sh"))
    inline = re.findall(r"`(pomona [a-z][^`\n]*)`", _BLOCK.sub("", document.read_text(encoding="utf-8")))
    return [words[1:] for words in [*_split_commands(shell), *map(shlex.split, inline)] if words[:1] == ["pomona"]]


def _split_commands(shell: str) -> Iterator[list[str]]:
    """Each command's words; a quoted text may go over several lines, `#` begins a comment."""
    command = ""
    for line in shell.splitlines():
        command += f"{line}\n"
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # a quotation that is still open
            continue
        yield words
        command = ""
    assert not command, f"an open quotation: {command}"


def parse(arguments: list[str]) -> str:
    """The verb, after its arguments were parsed as the program would parse them."""
    verb, *rest = arguments
    assert verb in COMMAND.commands, f"no such verb: {verb}"
    if rest and rest != ["--help"]:
        COMMAND.commands[verb].make_context(f"pomona {verb}", rest)
    return verb


@EVERY_DOCUMENT
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    for target, _ in _LINK.findall(document.read_text(encoding="utf-8")):
        path = (document.parent / target).resolve()
        assert path.exists() or path in GENERATED, f"{document.name} links to {target}"


@EVERY_DOCUMENT
def test_every_command_line_parses(document: Path) -> None:
    for arguments in command_lines(document):
        try:
            parse(arguments)
        except Exception as error:  # typer brings a click of its own, whose errors have no public name
            pytest.fail(f"{document.name}: pomona {shlex.join(arguments)}: {error}")


def test_readme_names_every_verb_in_a_line_that_parses() -> None:
    assert {parse(arguments) for arguments in command_lines(ROOT / "README.md")} == set(COMMAND.commands)


@EVERY_DOCUMENT
def test_every_recipe_parses(document: Path) -> None:
    for mark, text in blocks(document, "yaml"):
        assert mark in _RECIPES, f"mark the block: {text[:40]!r}"
        parse_recipe(yaml.safe_load(text), _RECIPES[mark], file=document)


def test_the_commands_of_the_tutorial_change_the_recipe_of_the_tutorial() -> None:
    document = ROOT / "docs/tutorial.md"
    (_, text), *_ = blocks(document, "yaml")
    overridden = [line for line in command_lines(document) if line[0] == "adapt" and "--set" in line]
    assert overridden
    for line in overridden:
        changes = [value for option, value in itertools.pairwise(line) if option == "--set"]
        recipe = parse_recipe(yaml.safe_load(text), Recipe, changes)
        assert recipe.controller == controllers.create("fixed", {"prune_ratio": 0})


@EVERY_DOCUMENT
def test_python_names_what_the_package_has(document: Path) -> None:
    import pomona

    for _, text in blocks(document, "python"):
        compile(text, document.name, "exec")
        for names in re.findall(r"^from pomona import (.+)$", text, re.MULTILINE):
            assert [name for name in names.split(", ") if not hasattr(pomona, name)] == []


def test_every_decision_record_begins_with_its_decision_and_is_listed() -> None:
    index, site = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/adr/index.md", "mkdocs.yml"))
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert records
    for record in records:
        title, _, decision = record.read_text(encoding="utf-8").split("\n")[:3]
        assert re.match(rf"# {int(record.name[:4])}\. \S", title), record.name
        assert re.match(r"\*\*Decision\.\*\* .+\.$", decision), record.name
        assert f"]({record.name})" in index, record.name
        assert f"- adr/{record.name}\n" in f"{site}\n", record.name


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_names_every_verb_and_component(hooks: ModuleType) -> None:
    assert [f"## pomona {verb}" in hooks.commands_page() for verb in COMMAND.commands] == [True] * len(COMMAND.commands)
    page = hooks.registries_page()
    assert [name for name in merge_methods if f"### {name}\n" not in page] == []
    assert 'A row: `{"document": "DOCUMENT", "summary": "ANSWER"}`, and optionally `id`.' in page
    assert '"input": "DOCUMENT", "output": "ANSWER"}`, and optionally `id`; `input` may be missing.' in page
    moves = "largest move of the ratio in force in a round, and of the answer of a single pass whose curve is flat, in (0, 1]."
    assert f"| `max_commit_change` | `0.1` | {moves} |" in page


def test_the_reference_has_every_key_of_a_recipe_with_its_default(hooks: ModuleType) -> None:
    page = hooks.recipe_page()
    sections = {
        "Recipe",
        "TrainRecipe",
        "Data",
        "SplitSizes",
        "Source",
        "Merge",
        "Lora",
        "Tuning",
        "Pruning",
        "FirstPass",
        "CoefficientSettings",
        "Evaluation",
        "Tune",
        "Pool",
        "Decoding",
        "Experiment",
    }
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == sections
    for key in Recipe.model_fields:
        assert f"| `{key}` |" in page
    assert "| `data` | [Data](#data) | required | the target's. |" in page
    assert "| `sources` | list of [Source](#source), at least one | required |" in page
    assert "| `test` | whole number or null | `100` | a number >= 1, or null for all of the test pool. |" in page
    assert "| `learning_rate` | number | `0.0002` | learning rate of the first epoch, > 0. |" in page
    assert "| `controller` | [controller](registries.md#controllers) | `bayes` |" in page
    of_experiment = page[page.index("## Experiment\n") :]
    assert [key for key in Experiment.model_fields if f"| `{key}` |" not in of_experiment] == []


def test_the_reference_has_every_key_of_a_record(hooks: ModuleType) -> None:
    page = hooks.record_page()
    assert [key for key in RunRecord.model_fields if f"| `{key}` |" not in page] == []
    assert "| `metrics` | text → text → [Estimate](#estimate) | `{}` |" in page
    of_experiment = page[page.index("## ExperimentRecord\n") :]
    assert [key for key in ExperimentRecord.model_fields if f"| `{key}` |" not in of_experiment] == []
    assert set(re.findall(r"\(#(\w+)\)", page)) <= {name.lower() for name in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
