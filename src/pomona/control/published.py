"""The behaviours of the published code of GRASP (arXiv 2601.06702) that differ from Pomona's, each with a named switch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pomona.errors import InputError, suggest

Behaviour = Literal[
    "reinforce",
    "variance_floor",
    "narrow_start",
    "independent_draws",
    "all_probed",
    "held_reference",
    "any_gain",
    "candidate_mask",
    "best_reward",
    "importance_once",
    "starts_unpruned",
    "no_feedback",
    "moments_at_commits",
    "adam_restart",
    "masks_by_adapter",
    "ties_pruned",
]

PUBLISHED: Mapping[Behaviour, str] = {
    "reinforce": "The update is plain REINFORCE: advantages are centred but not normalised, nothing is clipped, the mean is pulled "
    "to the ratio in force in place of a divergence, and the entropy is added to the deviation, not scaled by the learning rate.",
    "variance_floor": "The update of reinforce divides by a variance of at least 0.0001; requires reinforce.",
    "narrow_start": "The first deviation, if not given, is a sixth of the allowed range.",
    "independent_draws": "Candidates are drawn independently, and neither the candidates nor the ratio in force are rounded.",
    "all_probed": "Every candidate is probed on all micro dev examples; none is screened or stopped.",
    "held_reference": "L_0 is measured under the mask in force, which was selected in an earlier round.",
    "any_gain": "The best candidate is committed if its reward is at least 0.",
    "candidate_mask": "The candidate's own mask is committed; max_commit_change bounds only the ratio in force.",
    "best_reward": "The answer is the ratio with the best reward of all rounds, the first of equals.",
    "importance_once": "Importance is computed once, at the first round, and kept.",
    "starts_unpruned": "Nothing is pruned before the first commit: prune_ratio_start is only recorded.",
    "no_feedback": "Pruned entries are not trained: a revived entry has the value at which it was pruned.",
    "moments_at_commits": "A commit clears the optimizer's moments of newly pruned entries; nothing else clears moments.",
    "adam_restart": "A commit sets Adam's step counter of every factor to 0.",
    "masks_by_adapter": "Each adapter's own factors have their own masks, also in a sum, unless pruning.masks is given.",
    "ties_pruned": "Every entry with an importance up to the floor(p n)-th lowest is pruned, so ties prune more.",
}
"""The effect of each switch."""

_NEEDS: Mapping[str, Behaviour] = {"variance_floor": "reinforce"}


def check_published(published: tuple[str, ...]) -> None:
    """Refuse an unknown name, and a name without effect because it requires another one.

    Raises:
        InputError: there is such a name.
    """
    for name in published:
        if name not in get_args(Behaviour):
            raise InputError("no such published behaviour", field="published", value=name, fix=suggest(name, PUBLISHED))
        if name in _NEEDS and _NEEDS[name] not in published:
            problem = f"changes nothing without {_NEEDS[name]}"
            raise InputError(problem, field="published", value=name, fix=f"Add {_NEEDS[name]}, or leave {name} out")
