"""Components from what a person wrote: by name in a recipe, or with parameters on a command line."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

from pomona.errors import InputError, suggest
from pomona.registry import Registry

T = TypeVar("T")


@functools.cache
def _adapter(component: type[T]) -> TypeAdapter[T]:
    """Pydantic's validator of a component; building one takes a millisecond, and an experiment has thousands of components."""
    return TypeAdapter(component)


def decoded(registry: Registry[Any]) -> BeforeValidator:
    """For a field that holds a component: `name`, or `{name: ..., parameter: value}` -> the component."""

    def decode(value: object) -> object:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        parameters = dict(value)
        name = parameters.pop("name", None)
        if not isinstance(name, str):
            raise InputError(f"the {registry.kind} needs a name", value=dict(value), fix=f"Known: {', '.join(registry)}")
        _check_known(registry, name, parameters)
        return _adapter(registry[name]).validate_python(parameters)

    return BeforeValidator(decode)


def encoded(registry: Registry[Any]) -> PlainSerializer:
    """The inverse of `decoded`, with every parameter spelt out."""

    def encode(component: Any) -> dict[str, object] | None:
        if component is None:
            return None
        name = next(name for name in registry if registry[name] is type(component))
        return {"name": name, **dataclasses.asdict(component)}

    return PlainSerializer(encode)


def typed(registry: Registry[T], name: str, parameters: Mapping[str, object]) -> T:
    """As `Registry.create`, with the values' types checked, and lists taken where tuples are wanted, as a recipe does.

    Args:
        registry: of the component.
        name: a registered name.
        parameters: values for its fields, from YAML or a command line.

    Raises:
        InputError: unknown name or parameter (the nearest known one is named), or a value that does not fit.
    """
    _check_known(registry, name, parameters)
    try:
        return _adapter(registry[name]).validate_python(dict(parameters))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{registry.kind} {name!r}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise InputError(problem, field=".".join(map(str, first["loc"])), value=first["input"]) from error


def _check_known(registry: Registry[Any], name: str, parameters: Mapping[Any, object]) -> None:
    known = registry.parameters(name)
    for key in parameters:
        if key not in known:
            raise InputError(f"{registry.kind} {name!r} has no parameter {key!r}", fix=suggest(str(key), known))
