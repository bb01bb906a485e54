"""Pruning: (scores, prune ratio) -> mask of an exact count, and what is done with masks."""

from __future__ import annotations

from pomona.pruning.mask import Commit, change_share, commit, jaccard, restored, trial_values
from pomona.pruning.select import pruned_count, select_lowest

__all__ = ["Commit", "change_share", "commit", "jaccard", "pruned_count", "restored", "select_lowest", "trial_values"]
