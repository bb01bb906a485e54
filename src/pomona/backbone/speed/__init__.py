"""Speed-ups, one a file: switched on once, when a model is loaded (`switched_on`), and asked for as `Packing in backbone.speed`."""

from __future__ import annotations

from pomona.backbone.speed.activations_again import ActivationsAgain
from pomona.backbone.speed.base import Speed, SpeedUp, Switch, speed_ups, switched_on
from pomona.backbone.speed.completion_head import CompletionHead
from pomona.backbone.speed.finished_rows import FinishedRows
from pomona.backbone.speed.frozen_products import FrozenProducts
from pomona.backbone.speed.grouped_prefill import GroupedPrefill
from pomona.backbone.speed.needed_rows import NeededRows
from pomona.backbone.speed.packing import Packing
from pomona.backbone.speed.shared_passes import SharedPasses

__all__ = [
    "ActivationsAgain",
    "CompletionHead",
    "FinishedRows",
    "FrozenProducts",
    "GroupedPrefill",
    "NeededRows",
    "Packing",
    "SharedPasses",
    "Speed",
    "SpeedUp",
    "Switch",
    "speed_ups",
    "switched_on",
]
