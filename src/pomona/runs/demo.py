"""The demo's recipe: the one that is packaged with the program."""

from __future__ import annotations

from collections.abc import Sequence

from pomona.recipes import read_packaged
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.read_yaml import read_yaml
from pomona.runs.recipe import Recipe


def demo_recipe(overrides: Sequence[str] = ()) -> Recipe:
    """The packaged `demo.yaml`, with `key=value` overrides.

    Raises:
        InputError: an override that does not fit.
    """
    return parse_recipe(read_yaml(read_packaged("demo")), Recipe, overrides, "demo.yaml")
