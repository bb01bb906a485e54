"""`--base`: the base model's folder or file, and the table of its modules."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pomona.errors import InputError

if TYPE_CHECKING:
    from pomona.adapters.base_modules import BaseModules

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def base_path(name: str) -> Path:
    """Where the base model is that a user names.

    Args:
        name: a path, `embedded`, or a hub id whose files are in the local cache; nothing is fetched.

    Raises:
        InputError: there is no such folder or file, and no such model in the cache.
    """
    found = find_base(name)
    if found is None:
        fix = "Give an existing path, `embedded`, or a hub id that is in the local cache"
        raise InputError("no such model folder or file", field="--base", value=name, fix=fix)
    return found


def find_base(name: str) -> Path | None:
    """As `base_path`; None where there is no such model here."""
    from pomona.backbone.embedded import NAME, embedded_model
    from pomona.backbone.model_folder import cached_folder

    if name in {NAME, "embedded"}:
        return embedded_model()
    path = Path(name).expanduser()
    if path.exists():
        return path
    return cached_folder(name) if is_hub_id(name) else None


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository of the hub."""
    return _HUB_ID.fullmatch(name) is not None


def called(name: str) -> str:
    """What adapters call the model that a user names."""
    from pomona.backbone.embedded import EMBEDDED, NAME

    return NAME if name == EMBEDDED else name


def table_of(folder: Path, wanted: Collection[str]) -> BaseModules | None:
    """The table of the modules of a model folder, by its class; None where transformers does not know the class."""
    from pomona.backbone.base_modules import modules_of_folder

    return modules_of_folder(folder, wanted)
