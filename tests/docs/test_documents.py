"""The documents say what is true: links lead somewhere, commands and recipes parse, the worked example works."""

from __future__ import annotations

import functools
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
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
COMMAND: Any = typer.main.get_command(app)

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
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


@functools.cache
def anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, by the rule that GitHub and the site share."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = [re.sub(r"[^\w\- ]", "", title.lower()) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {title.strip().replace(" ", "-") for title in titles}


@EVERY_DOCUMENT
def test_every_link_within_the_repository_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, anchor in _LINK.findall(document.read_text(encoding="utf-8")):
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), f"{document.name} links to {target}"
        assert path.is_relative_to(ROOT), f"{document.name} links to {target}"
        if anchor:
            assert anchor[1:] in anchors(path), f"{document.name} links to {target}{anchor}"


@EVERY_DOCUMENT
def test_every_command_line_parses(document: Path) -> None:
    for arguments in command_lines(document):
        try:
            parse(arguments)
        except Exception as error:  # typer brings a click of its own, whose errors have no public name
            pytest.fail(f"{document.name}: pomona {shlex.join(arguments)}: {error}")


def test_the_page_of_verbs_names_every_verb_in_a_line_that_parses() -> None:
    assert {parse(arguments) for arguments in command_lines(ROOT / "docs/which-verb.md")} == set(COMMAND.commands)


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


def test_the_readme_is_short_and_its_figures_are_those_of_the_results() -> None:
    readme, results = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results/index.md"))
    assert len(readme.splitlines()) <= 120
    demo = results[results.index("## The demo\n") : results.index("## Cost of pruning per step\n")]
    rows = dict(re.findall(r"^\| \**([^|*]+)\** \| (\d+\.\d\d) \(", demo, re.MULTILINE))
    named = {"the model alone": "Zero shot", "Pomona": "Pomona", "a LoRA": "Target LoRA", "the two adapters": "Merge (concat)"}
    for words, system in named.items():
        line = next(line for line in readme.splitlines() if line.startswith(f"| {words}"))
        assert f"{float(rows[system]):.1f}" in line, system


def test_the_index_and_the_site_list_every_page() -> None:
    index, site = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/index.md", "mkdocs.yml"))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    decisions = {page for page in pages if page.startswith("adr/0")}  # listed by an index of their own
    assert {page for page in pages - decisions if f"]({page})" not in index} == set()
    assert {page for page in pages if f"- {page}\n" not in f"{site}\n"} == set()


@EVERY_DOCUMENT
def test_no_row_of_a_table_of_keys_is_there_twice(document: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", document.read_text(encoding="utf-8"), re.MULTILINE):
        keys = re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
        assert [key for key in set(keys) if keys.count(key) > 1] == [], document.name


@EVERY_DOCUMENT
def test_every_table_names_its_columns(document: Path) -> None:
    tables = re.findall(r"^(\|.*\|)\n\|[ :|-]+\|$", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert [head for head in tables if any(not cell.strip() for cell in head.strip("|").split("|"))] == []


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
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_up_to_date(reference: ModuleType) -> None:
    stale = [name for name, text in reference.pages().items() if (reference.REFERENCE / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`"


def test_the_reference_names_every_verb_and_component(reference: ModuleType) -> None:
    assert [f"## pomona {verb}" in reference.commands_page() for verb in COMMAND.commands] == [True] * len(COMMAND.commands)
    page = reference.registries_page()
    assert [name for name in merge_methods if f"### {name}\n" not in page] == []
    assert 'A row: `{"document": "DOCUMENT", "summary": "ANSWER"}`, and optionally `id`.' in page
    assert '"input": "DOCUMENT", "output": "ANSWER"}`, and optionally `id`; `input` may be missing.' in page
    moves = "largest move of the ratio in force in a round, and of the answer of a single pass whose curve is flat, in (0, 1]."
    assert f"| `max_commit_change` | `0.1` | {moves} |" in page


def test_the_reference_has_every_key_of_a_recipe_with_its_default(reference: ModuleType) -> None:
    page = reference.recipe_page()
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
        "Quantization",
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
    assert "| key | value | default |\n" not in page  # a table without meanings
    assert re.findall(r"^\| `(\w+)` .*\|\s*\|$", page, re.MULTILINE) == []  # a key without a meaning


def test_the_reference_has_every_key_of_a_record(reference: ModuleType) -> None:
    page = reference.record_page()
    assert [key for key in RunRecord.model_fields if f"| `{key}` |" not in page] == []
    assert "| `metrics` | text → text → [Estimate](#estimate) | `{}` |" in page
    of_experiment = page[page.index("## ExperimentRecord\n") :]
    assert [key for key in ExperimentRecord.model_fields if f"| `{key}` |" not in of_experiment] == []
    headings = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(re.findall(r"\(#(\w+)\)", page)) <= {name.lower() for name in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
