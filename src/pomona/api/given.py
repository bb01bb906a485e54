"""What callers may give in short: the path of a recipe, or its content, in place of the recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, overload

from pydantic import BaseModel

from pomona.runs.read_recipe import parse_recipe
from pomona.runs.read_recipe import read_recipe as read_file
from pomona.runs.recipe import Recipe

R = TypeVar("R", bound=BaseModel)


@overload
def read_recipe(source: Path | str | Mapping[str, object], kind: None = None, overrides: Sequence[str] = ()) -> Recipe: ...


@overload
def read_recipe(source: Path | str | Mapping[str, object], kind: type[R], overrides: Sequence[str] = ()) -> R: ...


def read_recipe(
    source: Path | str | Mapping[str, object], kind: type[BaseModel] | None = None, overrides: Sequence[str] = ()
) -> BaseModel:
    """Read and check a recipe.

    Args:
        source: the path of a YAML file, or what such a file holds.
        kind: `Recipe`, by default, or `TrainRecipe`.
        overrides: `key.key=value`, the value as YAML; a number in the key counts into a list.

    Raises:
        InputError: no such file, not YAML, an unknown key (the nearest known one is named), a value that does not fit.
    """
    if isinstance(source, Mapping):
        return parse_recipe(copy.deepcopy(dict(source)), kind or Recipe, overrides)
    return read_file(source, kind or Recipe, overrides)


def recipe_of(given: R | Path | str, kind: type[R], overrides: Sequence[str] = ()) -> R:
    """A recipe, read where a path is given; `overrides` are of a file.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    return read_file(given, kind, overrides) if isinstance(given, str | Path) else given
