"""Pomona: merge LoRA adapters, fine-tune the merge on fifty examples, learn how much of it to prune, get one PEFT adapter."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pomona.threads import wait_asleep

if TYPE_CHECKING:
    __version__: str
    from pomona.adapters import Adapter, Factors, read_adapter, write_adapter
    from pomona.merging.merge import merge
    from pomona.runs.adapt import adapt
    from pomona.runs.evaluate import evaluate
    from pomona.runs.read_recipe import read_recipe
    from pomona.runs.recipe import Recipe
    from pomona.runs.record import RunRecord

__all__ = [
    "Adapter",
    "Factors",
    "Recipe",
    "RunRecord",
    "adapt",
    "evaluate",
    "merge",
    "read_adapter",
    "read_recipe",
    "write_adapter",
]

wait_asleep()  # here, since every road to Pomona passes before it imports torch

_HOME = {
    "Adapter": "pomona.adapters",
    "Factors": "pomona.adapters",
    "Recipe": "pomona.runs.recipe",
    "RunRecord": "pomona.runs.record",
    "adapt": "pomona.runs.adapt",
    "evaluate": "pomona.runs.evaluate",
    "merge": "pomona.merging.merge",
    "read_adapter": "pomona.adapters",
    "read_recipe": "pomona.runs.read_recipe",
    "write_adapter": "pomona.adapters",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `import pomona` alone costs nothing."""
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'pomona' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def _version() -> str:
    """What the installed package's metadata say."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pomona")
    except PackageNotFoundError:  # sources that were never installed
        return "unknown"
