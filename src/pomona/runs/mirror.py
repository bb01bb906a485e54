"""Local files that stand in for data sets of the hub: the table that `POMONA_MIRROR` names.

The table is a YAML file of `hub:...` source -> `{file, dev, test, columns}`. A recipe whose data are in it is read as if it named
the files, so its record says what was read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pomona.data.formats.rows import HUB
from pomona.errors import InputError

VARIABLE = "POMONA_MIRROR"
_SPLITS = ("train", "dev", "test")


class StandIn(BaseModel):
    """What stands in for one source.

    Args:
        file: in its place, relative to the table.
        dev, test: files of their own for these splits, where the source is the only pool of a recipe and the local copy has them.
        columns: the task's field -> the file's column, in place of those of the recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    dev: str | None = None
    test: str | None = None
    columns: dict[str, str] = {}


_TABLE = TypeAdapter(dict[str, StandIn])


def mirrored(data: Mapping[str, Any]) -> dict[str, Any]:
    """The `data` of a recipe, with files in place of its data sets of the hub; unchanged where not all of these are in the table.

    Args:
        data: as a recipe has it: `train`, `dev`, `test` (a source, or a list of sources), `columns` and other keys, which stay.

    Raises:
        InputError: the table cannot be read, or the stand-ins of one recipe have different columns.
    """
    name = os.environ.get(VARIABLE)
    sources = {split: _listed(data.get(split)) for split in _SPLITS}
    named = {source for listed in sources.values() for source in listed if source.startswith(HUB)}
    if not name or not named:
        return dict(data)
    path = Path(name)
    table = _read(path)
    if not named <= table.keys():
        return dict(data)
    chosen = [table[source] for source in sorted(named)]
    if any(one.columns != chosen[0].columns for one in chosen):
        raise InputError("stand-ins of one recipe have different columns", file=path, value=", ".join(sorted(named)))
    files: dict[str, Any] = {}
    for split, listed in sources.items():
        found = [_beside(path, table[one].file) if one in table else one for one in listed]
        if found:
            files[split] = found[0] if isinstance(data[split], str) else found
    if list(files) == ["train"] and isinstance(files["train"], str):
        files |= {split: _beside(path, file) for split in _SPLITS[1:] if (file := getattr(chosen[0], split)) is not None}
    return dict(data) | files | {"columns": chosen[0].columns}


def _beside(table: Path, file: str) -> str:
    return os.path.normpath(table.parent / file)


def _listed(source: Any) -> list[str]:
    return [] if source is None else [source] if isinstance(source, str) else [str(one) for one in source]


def _read(path: Path) -> dict[str, StandIn]:
    try:
        return _TABLE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        fix = f"Write hub:owner/name@split: {{file: rows.jsonl}}, or unset {VARIABLE}"
        raise InputError(f"the table of {VARIABLE} cannot be read: {reason}", file=path, fix=fix) from error
