"""Pruning: (scores, prune ratio) -> masks of exact counts, when they come into force, and what is done with them."""

from __future__ import annotations

from pomona.pruning.by_adapter import select_masks_by_adapter
from pomona.pruning.granularity import Granularity, ModuleMasks, ModuleScores, Scope, check_scope, default_scope, select_masks
from pomona.pruning.layer_groups import group_shares, layer_groups
from pomona.pruning.mask import Commit, change_share, commit, jaccard, restored, trial_values
from pomona.pruning.schedule import Schedule, ramp_end, scheduled_ratio
from pomona.pruning.select import pruned_count, select_lowest

__all__ = [
    "Commit",
    "Granularity",
    "ModuleMasks",
    "ModuleScores",
    "Schedule",
    "Scope",
    "change_share",
    "check_scope",
    "commit",
    "default_scope",
    "group_shares",
    "jaccard",
    "layer_groups",
    "pruned_count",
    "ramp_end",
    "restored",
    "scheduled_ratio",
    "select_lowest",
    "select_masks",
    "select_masks_by_adapter",
    "trial_values",
]
