"""Adapters that come with the program, for the embedded model: `embedded:docstrings-stdlib` names one.

Each is a PEFT folder beside this file, in float16, with its card. `make demo-sources` trains them again.
"""

from __future__ import annotations

from pathlib import Path

from pomona.errors import InputError, suggest

EMBEDDED = "embedded:"


def is_embedded(path: Path | str) -> bool:
    """Whether a path names an adapter that comes with the program."""
    return str(path).startswith(EMBEDDED)


def embedded_names() -> list[str]:
    """The names of all embedded adapters, without `embedded:`."""
    return sorted(folder.name for folder in Path(__file__).parent.iterdir() if (folder / "adapter_config.json").exists())


def embedded_folder(path: Path | str) -> Path:
    """The folder of an embedded adapter.

    Raises:
        InputError: no such adapter.
    """
    name, known = str(path).removeprefix(EMBEDDED), embedded_names()
    if name not in known:
        raise InputError("no such embedded adapter", value=str(path), fix=suggest(name, known))
    return Path(__file__).parent / name
