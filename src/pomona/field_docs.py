"""What the docstring of a class says about its fields: the entries of `Args:`."""

from __future__ import annotations

import inspect
import re

_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.+)")
_SECTION = re.compile(r"(Args|Returns|Raises):")


def field_docs(cls: type) -> dict[str, str]:
    """Field -> its description on one line; those of base classes too. An entry may name several fields: `dev, test: ...`."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        found |= _entries(inspect.cleandoc(one.__doc__ or "") if one is not object else "")
    return found


def summary(cls: type) -> str:
    """The first line of the docstring, without the markup of code."""
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _entries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: tuple[str, ...] = ()
    inside = False
    for line in text.splitlines():
        if section := _SECTION.fullmatch(line.strip()):
            inside, names = section[1] == "Args", ()
        elif inside and (entry := _ENTRY.fullmatch(line.strip())) and len(line) - len(line.lstrip()) == 4:
            names = tuple(entry["names"].split(", "))
            found |= dict.fromkeys(names, entry["text"])
        elif inside and line.strip() and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
