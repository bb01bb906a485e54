"""The control for the sources in a run with coefficients: the target LoRA alone, with coefficients of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pomona.adapters.factors import Adapter
from pomona.evaluation.baselines import Baseline, Trainer, baselines


@baselines.register("target_recalibrated")
@dataclass(frozen=True)
class TargetRecalibrated(Baseline):
    """The target LoRA of `target_lora`, finished, and then its own coefficients trained on the same examples, factors frozen.

    The coefficients are those of `merge.coefficients`, started at 1; by default one a module. A merge with trained coefficients
    that is not significantly better than this control has not shown that the sources help: the gain may come from the
    recalibration of the target LoRA (arXiv 2602.12323).
    """

    trains: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """What tables call it."""
        return "Target recalibrated"

    @property
    def description(self) -> str:
        """What it is."""
        return "the target LoRA, with coefficients of its own trained on the same examples"

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """Train the target LoRA, where it is not there yet, and its coefficients."""
        return trainer.train_recalibrated(system)
