"""The demo's recipe: the one that is packaged with the program."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from pomona.runs.read_recipe import parse_recipe
from pomona.runs.read_yaml import read_yaml
from pomona.runs.recipe import Recipe


def demo_recipe(overrides: Sequence[str] = ()) -> Recipe:
    """The packaged `demo.yaml`, with `key=value` overrides.

    Raises:
        InputError: an override that does not fit.
    """
    text = files("pomona.runs").joinpath("demo.yaml").read_text(encoding="utf-8")
    return parse_recipe(read_yaml(text), Recipe, overrides, "demo.yaml")
