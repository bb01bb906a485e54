"""Write a first recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pomona.adapters.config import CONFIG_FILE
from pomona.api.schema import schema
from pomona.backbone.embedded import EMBEDDED, NAME
from pomona.errors import InputError
from pomona.runs.new_recipe import SCHEMA, new_recipe


@dataclass(frozen=True)
class Initialised:
    """What was written.

    Args:
        recipe: the file.
        guessed: one sentence: the task, and the columns that its fields are read from.
        examples: number of different documents in the data.
        model: the base model that the recipe names.
    """

    recipe: Path
    guessed: str
    examples: int
    model: str


def init(
    recipe: Path | str,
    data: str,
    adapters: Sequence[str],
    *,
    model: str | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Initialised:
    """Write a recipe with comments, and beside it the JSON schema that editors complete its keys with.

    Args:
        recipe: the file to write; it must not be there.
        data: a file of rows, or `hub:owner/name`.
        adapters: PEFT folders, or `hub:owner/name`.
        model: the base model; by default the one that the first adapter names, else `embedded`.
        task: a task's name; by default the first that fits the columns.
        columns: the task's field -> column; guessed where they are not given.

    Raises:
        InputError: the file is there; data that cannot be read, or that no task fits; no adapter.
    """
    path = Path(recipe)
    if path.exists():
        raise InputError("already exists", file=path, fix="Name a new file")
    chosen = model or named_base(adapters) or EMBEDDED
    made = new_recipe(path, data, adapters, chosen, task=task, columns=columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(made.text)
        (path.parent / SCHEMA).write_text(json.dumps(schema(), ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=path) from error
    return Initialised(path, made.guessed.reason, made.examples, chosen)


def named_base(adapters: Sequence[str]) -> str | None:
    """The base model that the first adapter with a config here names."""
    for one in adapters:
        try:
            config = json.loads((Path(one) / CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
        if isinstance(name, str) and name:
            return EMBEDDED if name == NAME else name
    return EMBEDDED if any(one.startswith(f"{EMBEDDED}:") for one in adapters) else None
