"""Trainable merges: adapters trained together as one update, one kind a file."""

from __future__ import annotations

from pomona.backbone.trainable.base import AdaptedModule, TrainableMerge, trainable_merges
from pomona.backbone.trainable.coefficients import Coefficients
from pomona.backbone.trainable.concat import Concat
from pomona.backbone.trainable.linear import Linear

__all__ = ["AdaptedModule", "Coefficients", "Concat", "Linear", "TrainableMerge", "trainable_merges"]
