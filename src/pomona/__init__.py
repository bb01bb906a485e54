"""Pomona: merge LoRA adapters, fine-tune the merge on fifty examples, learn how much of it to prune, get one PEFT adapter.

Each public name is imported when it is first used. `__init__.pyi` tells type checkers and editors the same names.
"""

from __future__ import annotations

import importlib

from pomona.threads import wait_asleep

wait_asleep()  # here, since every road to Pomona passes before it imports torch

_HOME = {
    "Adapter": "pomona.adapters",
    "Checked": "pomona.api.check",
    "EvaluationRecord": "pomona.runs.record",
    "ExperimentRecord": "pomona.runs.experiments.record",
    "Exported": "pomona.api.export",
    "Factors": "pomona.adapters",
    "Generation": "pomona.api.generate",
    "InputError": "pomona.errors",
    "Inspection": "pomona.api.inspect",
    "PomonaError": "pomona.errors",
    "Recipe": "pomona.runs.recipe",
    "RunRecord": "pomona.runs.record",
    "TrainRecipe": "pomona.runs.recipe",
    "adapt": "pomona.api.adapt",
    "check": "pomona.api.check",
    "evaluate": "pomona.runs.evaluate",
    "experiment": "pomona.api.experiment",
    "export": "pomona.api.export",
    "generate": "pomona.api.generate",
    "inspect": "pomona.api.inspect",
    "load_backbone": "pomona.backbone.load",
    "merge": "pomona.merging.merge",
    "push": "pomona.adapters.push",
    "read_adapter": "pomona.adapters",
    "read_examples": "pomona.runs.examples",
    "read_recipe": "pomona.api.given",
    "read_run": "pomona.report",
    "read_splits": "pomona.runs.examples",
    "train_adapter": "pomona.api.train_adapter",
    "write_adapter": "pomona.adapters",
    "write_report": "pomona.report",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    """The public names, for completion: they are not here before they are used."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `import pomona` alone costs nothing."""
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'pomona' has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(_HOME[name]), name)
    return found


def _version() -> str:
    """What the installed package's metadata say."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pomona")
    except PackageNotFoundError:  # sources that were never installed
        return "unknown"
