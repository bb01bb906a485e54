"""A section of a recipe: typed, frozen, without unknown keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema
from pydantic_core import core_schema

from pomona.components import LenientSchema
from pomona.control import controllers
from pomona.data.tasks import tasks
from pomona.field_docs import field_docs, summary
from pomona.importance import importance_metrics
from pomona.registry import Registry


class RecipeSchema(LenientSchema):
    """The JSON schema of a recipe, for editors: each key has its description from the docstring of its section."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """A section that is a model, with the descriptions of its keys."""
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> dict[str, Any]:
        """A section that is a dataclass, with the descriptions of its keys."""
        return _described(super().dataclass_schema(schema), schema["cls"])

    def encode_default(self, dft: Any) -> Any:
        """The default as a recipe writes it: a component by its name."""
        registries: tuple[Registry[Any], ...] = (tasks, controllers, importance_metrics)
        names = [name for registry in registries for name in registry if registry[name] is type(dft)]
        return names[0] if names else super().encode_default(dft)


def _described(schema: dict[str, Any], cls: type) -> dict[str, Any]:
    told = field_docs(cls)
    for key, value in schema.get("properties", {}).items():
        value.pop("title", None)
        if key in told:
            value["description"] = told[key]
    return schema | {"description": summary(cls)}


class Section(BaseModel):
    """Base class of the sections."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)

    @classmethod
    def model_json_schema(
        cls,
        by_alias: Any = True,
        ref_template: str = DEFAULT_REF_TEMPLATE,
        schema_generator: type[GenerateJsonSchema] = RecipeSchema,
        mode: Any = "validation",
        **more: Any,
    ) -> dict[str, Any]:
        """The JSON schema of what may be written in YAML, with descriptions; `pomona schema` prints it."""
        return super().model_json_schema(by_alias, ref_template, schema_generator, mode, **more)
