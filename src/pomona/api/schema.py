"""The JSON schema of recipes, with which editors complete and check keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pomona.errors import InputError, suggest
from pomona.runs.experiments.recipe import Experiment
from pomona.runs.recipe import Recipe, TrainRecipe
from pomona.runs.section import RecipeSchema

_KINDS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "adapt": Recipe.model_json_schema,
    "train-adapter": TrainRecipe.model_json_schema,
    "experiment": lambda: Experiment.model_json_schema(schema_generator=RecipeSchema),
}


def schema(verb: str = "adapt") -> dict[str, Any]:
    """The JSON schema of the recipes of a verb: `adapt`, `train-adapter` or `experiment`.

    Raises:
        InputError: no such kind of recipe.
    """
    if verb not in _KINDS:
        raise InputError("reads no recipe", field="verb", value=verb, fix=suggest(verb, _KINDS))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_KINDS[verb]()}
