"""Candidates share forward passes: worth one kernel launch in place of G on an accelerator, as far as memory allows.

How much, on the device at hand: `python -m benchmarks probe_batching`. `pomona.backbone.candidates` lays out the passes. Without
it each candidate has passes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pomona.backbone.speed.base import SpeedUp, speed_ups

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@speed_ups.register("shared_passes")
@dataclass(frozen=True)
class SharedPasses(SpeedUp):
    """Losses under several values of the factors are computed in one pass, side by side."""

    def suits(self, model: PreTrainedModel) -> bool:
        """See `SpeedUp.suits`: every model; what cannot share a pass is found in the pass."""
        return True
