"""A component from values that a person typed: what is of the wrong type is said, not run into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pomona.errors import InputError, suggest
from pomona.registry import Registry

T = TypeVar("T")


def typed(registry: Registry[T], name: str, parameters: Mapping[str, object]) -> T:
    """As `Registry.create`, with the values' types checked, and lists taken where tuples are wanted, as a recipe does.

    Args:
        registry: of the component.
        name: a registered name.
        parameters: values for its fields, from YAML or a command line.

    Raises:
        InputError: unknown name or parameter (the nearest known one is named), or a value that does not fit.
    """
    known = registry.parameters(name)
    for key in parameters:
        if key not in known:
            raise InputError(f"{registry.kind} {name!r} has no parameter {key!r}", mend=suggest(str(key), known))
    try:
        return TypeAdapter(registry[name]).validate_python(dict(parameters))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{registry.kind} {name!r}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise InputError(problem, field=".".join(map(str, first["loc"])), value=first["input"]) from error
