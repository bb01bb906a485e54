"""What a recipe says of its model, as the loader takes it."""

from __future__ import annotations

from typing import NamedTuple

from pomona.backbone.quantised import Quantization
from pomona.backbone.speed import Switch
from pomona.runs.recipe import Recipe, TrainRecipe


class Loading(NamedTuple):
    """The arguments of `load_backbone`, in order."""

    model: str
    device: str
    dtype: str
    speed: Switch = "auto"
    quantization_config: Quantization | None = None
    attention: str | None = None


def loading(recipe: Recipe | TrainRecipe) -> Loading:
    """How to load the model of a recipe."""
    return Loading(*(getattr(recipe, name) for name in Loading._fields))
