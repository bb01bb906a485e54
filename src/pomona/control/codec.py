"""A controller's state as JSON holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from pomona.control.base import ControllerState
from pomona.errors import InputError, suggest


def state_to_dict(state: ControllerState) -> dict[str, object]:
    """The state as dicts, lists and numbers. JSON keeps them exactly: Python writes the shortest decimal that reads back."""
    return {field.name: _encode(getattr(state, field.name)) for field in dataclasses.fields(state)}


def state_from_dict(values: Mapping[str, object]) -> ControllerState:
    """The inverse of `state_to_dict`.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong type; the message names it.
    """
    return _decode(ControllerState, values, "state")  # pyright: ignore[reportReturnType]


def _encode(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(kind: Any, value: object, where: str) -> object:
    """`value` as a `kind`: one of `base.py`'s dataclasses, a tuple of a kind, a number, or an optional number."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError("must be a mapping", field=where, value=value)
        kinds = get_type_hints(kind)
        for key in value:
            if key not in kinds:
                raise InputError("unknown key", field=where, value=key, mend=suggest(str(key), kinds))
        for key in kinds:
            if key not in value:
                raise InputError(f"the key {key!r} is missing", field=where, mend="Start the run anew")
        return kind(**{key: _decode(kinds[key], one, f"{where}.{key}") for key, one in value.items()})
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError("must be a list", field=where, value=value)
        return tuple(_decode(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if value is None and type(None) in get_args(kind):
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise InputError("must be a whole number" if kind is int else "must be a number", field=where, value=value)
    return value if kind is int else float(value)
