"""Components from what a person wrote: by name in a recipe, or with parameters on a command line."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BeforeValidator, GetJsonSchemaHandler, PlainSerializer, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from pomona.errors import InputError, suggest
from pomona.field_docs import field_docs
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


@dataclasses.dataclass(frozen=True)
class ComponentSchema:
    """For a field that holds a component: its JSON schema, for editors. A name alone, or a mapping with the name and parameters.

    Args:
        registry: of the components.
        optional: whether null is allowed.
    """

    registry: Registry[Any]
    optional: bool = False

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        named: dict[str, Any] = {"enum": list(self.registry), "description": f"A {self.registry.kind} with its defaults"}
        choices = [named, *(self._mapping(name) for name in self.registry), *([{"type": "null"}] if self.optional else [])]
        return {"anyOf": choices}

    def _mapping(self, name: str) -> dict[str, Any]:
        cls = self.registry[name]
        told, known = field_docs(cls), self.registry.parameters(name)
        generated = _adapter(cls).json_schema(schema_generator=LenientSchema)
        properties = {key: value for key, value in generated.get("properties", {}).items() if key in known}
        for key, value in properties.items():
            value.pop("title", None)
            value.update({"description": told[key]} if key in told else {})
        described: dict[str, Any] = {
            "type": "object",
            "description": self.registry.describe(name),
            "properties": {"name": {"const": name}, **properties},
            "required": ["name", *(key for key, default in known.items() if default is dataclasses.MISSING)],
            "additionalProperties": False,
        }
        return described | ({"$defs": generated["$defs"]} if "$defs" in generated else {})


class LenientSchema(GenerateJsonSchema):
    """A JSON schema in which a value that has none, such as an object made by a validator, may be anything."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """Any value."""
        return {}

    def encode_default(self, dft: Any) -> Any:
        """The default as JSON has it; none where it has no such value."""
        try:
            return super().encode_default(dft)
        except Exception:  # a component
            return None


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
