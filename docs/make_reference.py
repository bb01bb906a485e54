"""Write the reference pages that are made from the program: `make reference`. A test compares them with the program.

The pages are files of the repository, so that links to them lead somewhere in a checkout and on the site.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

if typing.TYPE_CHECKING:
    from pomona.registry import Registry

REFERENCE = Path(__file__).parent / "reference"
_MADE = "<!-- Written by `make reference`: change the docstrings of the program, not this file. -->\n\n"
_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.+)")
_SECTION = re.compile(r"(Args|Returns|Raises):")
_WORDS = {
    str: "text",
    Path: "path",
    bool: "true or false",
    int: "whole number",
    float: "number",
    object: "anything",
    Any: "anything",
    type(None): "null",
}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def pages() -> dict[str, str]:
    """File name -> text of each generated page."""
    made = {"commands": commands_page, "recipe": recipe_page, "record": record_page, "registries": registries_page}
    return {f"{name}.md": _MADE + page() for name, page in made.items()}


def commands_page() -> str:
    """Every verb's help, as the command prints it."""
    import typer

    from pomona.cli.main import app

    parts = [
        "# Commands",
        "Each verb's help, as `--help` prints it. `--debug`, with any verb, shows the traceback of an error.",
        "An error is one line on standard error: the problem, its place, and the fix. `--json` prints one object for programs.",
        "## Exit codes",
        "| code | meaning |\n| --- | --- |\n| 0 | done |\n| 1 | failed: for example the training diverged |\n"
        "| 2 | wrong input: a file, a recipe, an option; nothing was trained |\n| 130 | interrupted; continue with `--resume` |\n"
        "| 143 | terminated; continue with `--resume` |",
    ]
    group: Any = typer.main.get_command(app)
    parent = group.make_context("pomona", [], resilient_parsing=True)
    for name, command in group.commands.items():
        context = command.context_class(command, parent=parent, info_name=name, terminal_width=110, max_content_width=110)
        parts += [f"## pomona {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def registries_page() -> str:
    """Every registered component with its hyperparameters and defaults."""
    from pomona.backbone.trainable import trainable_merges
    from pomona.control import PUBLISHED, controllers
    from pomona.data.tasks import tasks
    from pomona.evaluation.baselines import baselines
    from pomona.importance import importance_metrics
    from pomona.merging import merge_methods
    from pomona.metrics import metrics

    parts = [
        "# Registered components",
        "The components that a recipe can name, with every hyperparameter and its default. `pomona list` prints the short form. "
        "Write a component as its name alone, or as `{name: ..., hyperparameter: value}`.",
    ]
    registries: tuple[Registry[Any], ...] = (
        merge_methods,
        trainable_merges,
        importance_metrics,
        controllers,
        tasks,
        metrics,
        baselines,
    )
    for registry in registries:
        parts.append(f"## {registry.kind.capitalize()}s")
        for name in registry:
            cls = registry[name]
            parts += [f"### {name}", _prose(cls), *_sample_row(cls), *_parameter_table(cls, registry.parameters(name))]
    rows = [f"| `{name}` | {_cell(sentence)} |" for name, sentence in PUBLISHED.items()]
    parts += [
        "## Published behaviours",
        "The values of `published` of the `grasp` controller; `paper: true` enables all of them.",
        "\n".join(["| behaviour | in the published code |", "| --- | --- |", *rows]),
    ]
    return "\n\n".join(parts) + "\n"


def _sample_row(cls: Any) -> list[str]:
    """Of a task, a row that it reads."""
    row, lacking = getattr(cls, "sample_row", None), getattr(cls, "optional_fields", ())
    if row is None:
        return []
    optional = f"; {', '.join(f'`{field}`' for field in lacking)} may be missing" if lacking else ""
    return [f"A row: `{json.dumps(row, ensure_ascii=False)}`, and optionally `id`{optional}."]


def recipe_page() -> str:
    """Every key of a recipe, section by section, with type, bounds, default and meaning."""
    from pomona.runs.experiments.recipe import Experiment
    from pomona.runs.recipe import Recipe, TrainRecipe

    parts = [
        "# Recipe keys",
        "A recipe is a YAML file. An unknown key is an error that names the nearest known one. "
        "`--set key=value` overrides a value: `--set tuning.epochs=2`, `--set sources.0.weight=0.5`.",
        "`pomona adapt` reads a `Recipe`, `pomona train-adapter` a `TrainRecipe`, `pomona experiment` an `Experiment`. "
        "The other headings are sections of these.",
    ]
    told_elsewhere = {TrainRecipe: Recipe}
    return "\n\n".join([*parts, *_sections([Recipe, TrainRecipe, Experiment], told_elsewhere)]) + "\n"


def record_page() -> str:
    """Every key of `record.json` and of `experiment.json`, section by section."""
    from pomona.runs.experiments.record import ExperimentRecord
    from pomona.runs.record import RunRecord

    parts = [
        "# The record",
        "The content of `record.json` in a run folder, and of `experiment.json` in an experiment's folder. "
        "A key whose value is not known yet, or could not be determined, has its default.",
    ]
    return "\n\n".join([*parts, *_sections([RunRecord, ExperimentRecord], {})]) + "\n"


def _sections(waiting: list[Any], told_elsewhere: Mapping[Any, Any]) -> Iterator[str]:
    """Heading, prose and table of each class, and then of the classes that its keys hold, each once."""
    seen: set[Any] = set()
    while waiting:
        cls = waiting.pop(0)
        if cls in seen:
            continue
        seen.add(cls)
        meanings = _meanings(told_elsewhere.get(cls, cls)) | _meanings(cls)
        rows = []
        for key, annotation, bounds, default in _fields(cls):
            waiting += [kind for kind in _flat(annotation) if _is_section(kind)]
            rows.append(f"| `{key}` | {_type(annotation)}{bounds} | {default} | {meanings.get(key, '')} |")
        yield f"## {cls.__name__}"
        yield _prose(cls)
        yield "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows] if meanings else _bare(rows))


def _bare(rows: Iterable[str]) -> list[str]:
    """The table without its last column, where no key has a meaning beyond its name and the section's prose."""
    return ["| key | value | default |", "| --- | --- | --- |", *(row.removesuffix("  |") for row in rows)]


def _fields(cls: Any) -> Iterator[tuple[str, Any, str, str]]:
    """(key, annotation, bounds, default) of a pydantic model's or a dataclass's fields."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            made = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            yield field.name, hints[field.name], "", _default(made)
        return
    for key, field in cls.model_fields.items():
        bounds = [
            f"{sign} {value}" for name, sign in _BOUNDS for one in field.metadata if (value := getattr(one, name, None)) is not None
        ]
        bounds += ["at least one" for one in field.metadata if getattr(one, "min_length", None)]
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield key, field.annotation, "".join(f", {bound}" for bound in bounds), default


def _default(value: object) -> str:
    if value is dataclasses.MISSING:
        return "required"
    if _is_component(type(value)):
        return f"`{_component_name(type(value))}`"
    if _is_section(type(value)):
        given = {
            key: getattr(value, key) for key, _, _, default in _fields(type(value)) if _default(getattr(value, key)) != default
        }
        return "`" + ", ".join(f"{key}: {json.dumps(one)}" for key, one in given.items()) + "`" if given else "its own defaults"
    return f"`{json.dumps(value)}`"


def _is_component(kind: Any) -> bool:
    return any(kind in one for one in _component_classes())


def _component_classes() -> Iterator[dict[Any, str]]:
    from pomona.control import controllers
    from pomona.data.tasks import tasks
    from pomona.importance import importance_metrics

    registries: tuple[Registry[Any], ...] = (tasks, controllers, importance_metrics)
    for registry in registries:
        yield {registry[name]: name for name in registry}


def _component_name(kind: Any) -> str:
    return next(one[kind] for one in _component_classes() if kind in one)


def _is_section(kind: Any) -> bool:
    is_record = isinstance(kind, type) and (hasattr(kind, "model_fields") or dataclasses.is_dataclass(kind))
    return is_record and not getattr(kind, "__abstractmethods__", None) and not _is_component(kind)


def _flat(annotation: Any) -> list[Any]:
    """The classes inside `X | None` and `tuple[X, ...]`."""
    inner = [part for one in get_args(annotation) for part in _flat(one)]
    return inner or [annotation]


def _type(annotation: Any) -> str:
    """An annotation in words."""
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in get_args(annotation))
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin in (tuple, list):
        return f"list of {_type(get_args(annotation)[0])}"
    if origin is dict:
        return f"{_type(get_args(annotation)[0])} → {_type(get_args(annotation)[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type, get_args(annotation))))
    if annotation in _WORDS:
        return _WORDS[annotation]
    if _is_section(annotation):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    from pomona.control import Controller, Search
    from pomona.data.tasks import Task
    from pomona.importance import ImportanceMetric

    words = {
        Task: ("task", "tasks"),
        Controller: ("controller", "controllers"),
        Search: ("controller", "controllers"),
        ImportanceMetric: ("importance metric", "importance-metrics"),
    }
    word, anchor = words[annotation]
    return f"[{word}](registries.md#{anchor})"


def _parameter_table(cls: Any, parameters: dict[str, object]) -> list[str]:
    if not parameters:
        return ["No hyperparameters."]
    meanings = _meanings(cls)
    rows = [f"| `{key}` | {_default(default)} | {meanings.get(key, '')} |" for key, default in parameters.items()]
    return ["\n".join(["| hyperparameter | default | meaning |", "| --- | --- | --- |", *rows])]


def _prose(cls: Any) -> str:
    """The docstring up to its first section, a paragraph a line."""
    text = _SECTION.split(cls.__doc__ or "", maxsplit=1)[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip())


def _meanings(cls: Any) -> dict[str, str]:
    """Argument -> meaning, from the `Args:` of the class and of what it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        _, _, section = (one.__dict__.get("__doc__") or "").partition("Args:\n")
        names: list[str] = []
        indentation = len(section) - len(section.lstrip())
        for line in section.splitlines():
            depth = len(line) - len(line.lstrip())
            if line.strip() and depth < indentation:
                break
            entry = _ENTRY.fullmatch(line.strip()) if depth == indentation else None
            if entry:
                names = entry["names"].split(", ")
                found.update(dict.fromkeys(names, _cell(entry["text"])))
            elif line.strip():
                found.update({name: f"{found[name]} {_cell(line)}" for name in names})
    return found


def _cell(text: str) -> str:
    """Text for a table's cell, with `null` where a recipe says it and Python says None."""
    return re.sub(r"\bNone\b", "null", " ".join(text.split())).replace("|", "\\|")


if __name__ == "__main__":
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
