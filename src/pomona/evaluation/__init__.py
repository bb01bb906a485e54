"""What a system is worth: answers on the test set, scores with intervals, baselines, paired comparisons."""

from __future__ import annotations

from pomona.evaluation.baselines import Baseline, Trainer, baselines, find_baseline
from pomona.evaluation.lorahub import LoraHub
from pomona.evaluation.random_sources import RandomSources
from pomona.evaluation.target_recalibrated import TargetRecalibrated

__all__ = ["Baseline", "LoraHub", "RandomSources", "TargetRecalibrated", "Trainer", "baselines", "find_baseline"]
