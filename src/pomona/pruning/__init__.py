"""Pruning: (scores, prune ratio) -> masks of exact counts, when they come into force, and what is done with them."""

from __future__ import annotations

from pomona.pruning.in_force import Schedule, commit, ramp_end, restored, scheduled_ratio, trial_values
from pomona.pruning.lowest import lowest_of_rows, no_nan, pruned_count, select_lowest
from pomona.pruning.select import (
    Granularity,
    ModuleMasks,
    ModuleScores,
    Scope,
    check_scope,
    group_shares,
    layer_groups,
    select_masks,
    select_masks_by_adapter,
)
from pomona.pruning.sources import SourceGranularity, select_masks_by_source

__all__ = [
    "Granularity",
    "ModuleMasks",
    "ModuleScores",
    "Schedule",
    "Scope",
    "SourceGranularity",
    "check_scope",
    "commit",
    "group_shares",
    "layer_groups",
    "lowest_of_rows",
    "no_nan",
    "pruned_count",
    "ramp_end",
    "restored",
    "scheduled_ratio",
    "select_lowest",
    "select_masks",
    "select_masks_by_adapter",
    "select_masks_by_source",
    "trial_values",
]
