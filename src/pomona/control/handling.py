"""How a run treats masks, importance and optimizer moments while a controller searches for the prune ratio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Handling:
    """What a controller asks of the training loop beside its rounds; the defaults are Pomona's own.

    Args:
        refreshes_importance: each round's masks are selected by the importance as it is then; False: by that of the first round.
        starts_unpruned: no mask is in force before a round commits one; False: the mask of the first ratio is.
        trains_pruned: entries that a held mask prunes are trained in the stash from which they may come back.
        clears_moments_at_commits_only: only a commit clears optimizer moments, and only those of the entries that it newly prunes;
            False: pruned entries have no moments.
        restarts_adam: a commit sets the optimizer's step counters to 0.
        masks_by_adapter: each adapter's own factors have a mask of their own, unless the pruning settings say otherwise.
        prunes_ties: all entries that tie with the last pruned one are pruned too; False: the counts are exact.
    """

    refreshes_importance: bool = True
    starts_unpruned: bool = False
    trains_pruned: bool = False
    clears_moments_at_commits_only: bool = False
    restarts_adam: bool = False
    masks_by_adapter: bool = False
    prunes_ties: bool = False
