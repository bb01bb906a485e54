"""The complete recipes that come with the program: `pomona recipes` lists and prints them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from pomona.errors import InputError, suggest

_SUFFIX = ".yaml"
_RECIPE = re.compile(r"^recipe: (\S+\.yaml)$", re.MULTILINE)
"""The line of an experiment that names the file of its recipe."""


@dataclass(frozen=True)
class PackagedRecipe:
    """A recipe of the package.

    Args:
        name: its path below this folder, without the suffix: `experiments/ratio`.
        verb: what runs it: `adapt`, `experiment` or `train-adapter`.
        description: the first sentence of its comment.
    """

    name: str
    verb: str
    description: str


def packaged() -> list[PackagedRecipe]:
    """All recipes of the package, those of one folder together."""
    return [_described(name, _file(name).read_text(encoding="utf-8")) for name in _names()]


def read_packaged(name: str) -> str:
    """A recipe's text; an experiment has its recipe in it, so it stands alone.

    Raises:
        InputError: no recipe has this name.
    """
    known = _names()
    if name not in known:
        raise InputError("there is no such recipe", value=name, fix=suggest(name, known))
    text = _file(name).read_text(encoding="utf-8")
    named = _RECIPE.search(text)
    if named is None:
        return text
    inner = _file(_joined(name, named[1])).read_text(encoding="utf-8")
    indented = "".join(f"  {line}" if line.strip() else line for line in inner.splitlines(keepends=True))
    return f"{text[: named.start()]}recipe:\n{indented}{text[named.end() + 1 :]}"


def _names() -> list[str]:
    return sorted(_below(files(__name__), ""), key=lambda name: (name.rpartition("/")[0], name))


def _below(folder: Traversable, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield prefix + entry.name.removesuffix(_SUFFIX)


def _file(name: str) -> Traversable:
    return files(__name__).joinpath(*f"{name}{_SUFFIX}".split("/"))


def _joined(name: str, relative: str) -> str:
    """The name of the recipe that the file of `name` names by a relative path."""
    parts = name.split("/")[:-1]
    for part in relative.removesuffix(_SUFFIX).split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _described(name: str, text: str) -> PackagedRecipe:
    lines = text.splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    verb = "experiment" if "\nsystems:" in text else "adapt" if "\nsources:" in text else "train-adapter"
    return PackagedRecipe(name, verb, re.split(r"(?<=[.?])\s", comment, maxsplit=1)[0])
