"""Comparison of a base model with the one on which an adapter was trained: by identity if both are known, else by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pomona.adapters.base_identity import BaseIdentity, identity_of_folder
from pomona.adapters.config import read_json_object
from pomona.adapters.factors import Adapter
from pomona.errors import InputError

_SNAPSHOT = re.compile(r"models--(?:[^/]+--)?(?P<name>[^/]+)/snapshots/[^/]+$")
"""A revision's folder in the hub's cache."""
PROVENANCE_FILE = "pomona.json"
"""Beside PEFT's two files: where the adapter came from."""
BASE = "base"
"""Where an adapter's provenance, and that file, hold the identity of its base model, as values that JSON can hold."""


class Base(NamedTuple):
    """A base model: its name and its identity, if known."""

    name: str | None
    identity: BaseIdentity | None = None


def base_of(adapter: Adapter) -> Base:
    """The base model of an adapter, by its own statement; if it names an existing folder, with the identity of that folder."""
    name = adapter.base_model
    known = BaseIdentity.from_json(adapter.provenance.get(BASE))
    if known is None and name is not None:
        known = identity_of_folder(Path(name).expanduser())
    return Base(name, known)


def stored_identity(folder: Path) -> dict[str, object]:
    """`BASE` and its value if an adapter's folder has the identity of its base model; else empty."""
    file = folder / PROVENANCE_FILE
    try:
        known = BaseIdentity.from_json(read_json_object(file).get(BASE)) if file.is_file() else None
    except InputError:  # a file of another program, which does not affect the adapter
        known = None
    return {} if known is None else {BASE: known.as_json()}


def differences(one: Base, other: Base) -> list[str] | None:
    """The known differences of two bases; empty if only their names differ, None if nothing differs."""
    a, b = one.identity, other.identity
    if a is not None and b is not None:
        if found := a.differences(b):
            return found
        if a.weights is not None and a.weights == b.weights:
            return None
    if one.name is None or other.name is None or last_part(one.name) == last_part(other.name):
        return None
    return []


def base_warnings(named: Sequence[tuple[str, Adapter]], model: Base | None = None) -> list[str]:
    """A warning for each adapter with another base than the model, or, without a model, than the first adapter.

    Args:
        named: the adapters, each with its name in messages.
        model: the model to use them on.
    """
    known = [(name, base) for name, adapter in named if (base := base_of(adapter)) != Base(None)]
    if model is not None:
        known = [("the model", model), *known]
    return [
        _sentence(name, base, *known[0], respects, called="" if model is not None else "for ")
        for name, base in known[1:]
        if (respects := differences(base, known[0][1])) is not None
    ]


def _sentence(name: str, base: Base, first: str, reference: Base, respects: Sequence[str], *, called: str) -> str:
    why = f"; the two differ in {' and '.join(respects)}" if respects else ""
    if base.name is not None and base.name == reference.name:
        return f"{name} was trained on {_called(base)}, but {first} is {called}another model of that name{why}"
    return f"{name} was trained on {_called(base)}, but {first} is {called}{_called(reference)}{why}"


def shared_identity(adapters: Sequence[Adapter]) -> Mapping[str, object] | None:
    """The common identity of the base of all adapters; None if one lacks it or has another."""
    found = [BaseIdentity.from_json(adapter.provenance.get(BASE)) for adapter in adapters]
    first = found[0] if found else None
    return first.as_json() if first is not None and all(one == first for one in found) else None


def last_part(name: str) -> str:
    """`meta-llama/Llama-3-8B`, `/models/llama-3-8b/` and the hub cache's folder of that repository name one model."""
    path = name.replace("\\", "/").rstrip("/").lower()
    cached = _SNAPSHOT.search(path)
    return cached["name"] if cached else path.rsplit("/", 1)[-1]


def _called(base: Base) -> str:
    return repr(base.name) if base.name is not None else "a base that it does not name"
