"""The treatment of masks, importance and optimizer moments while a controller searches for the prune ratio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Handling:
    """A controller's requirements of the training loop besides its rounds; the defaults are Pomona's.

    Args:
        refreshes_importance: each round's masks use the current importance; False: that of the first round.
        starts_unpruned: no mask is in force before the first commit; False: the mask of the start ratio is in force.
        trains_pruned: the stashed values of entries under a held mask are trained, unless `pruning.feedback` is `never`.
        clears_moments_at_commits_only: only a commit clears optimizer moments, and only those of newly pruned entries; False:
            pruned entries never have moments.
        restarts_adam: a commit sets the optimizer's step counters to 0.
        masks_by_adapter: each adapter's factors have their own mask, unless the pruning settings say otherwise.
        prunes_ties: all entries with the same score as the last pruned entry are also pruned; False: the counts are exact.
    """

    refreshes_importance: bool = True
    starts_unpruned: bool = False
    trains_pruned: bool = True
    clears_moments_at_commits_only: bool = False
    restarts_adam: bool = False
    masks_by_adapter: bool = False
    prunes_ties: bool = False
