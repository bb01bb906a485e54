"""The `layerwise` controller: a prune ratio for each group of neighbouring layers, learned as `grasp` learns one for all."""

from __future__ import annotations

from dataclasses import dataclass

from pomona.control.base import controllers
from pomona.control.grasp import Grasp, GraspState
from pomona.control.rounds import check_settings, over_all
from pomona.control.surface import fit_surface
from pomona.ratios import Answer, GroupRatio
from pomona.seeding import stream


@controllers.register("layerwise")
@dataclass(frozen=True)
class Layerwise(Grasp):
    """Learns a prune ratio for each of several groups of neighbouring layers, from as many probes a round as `grasp`.

    The policy is a normal distribution with a diagonal covariance: a candidate is a ratio for every group, and all groups share
    its reward. Each group's mean and deviation climb the objective of `grasp` with the group's own density ratio, clipped by
    itself, as GRPO does for every token of an answer (arXiv 2402.03300, section 4.1); with a diagonal covariance the divergence
    and the entropy are sums over groups, so the groups' updates are independent but for the advantages. A commit moves each
    group's ratio towards the best candidate's by at most `max_commit_change`. The answer is where a surface fitted to
    all losses of all rounds is lowest, in the mean over bootstrap draws (`surface.py`); it tells groups apart only as far as that
    foretells other rounds.

    `prune_ratio`, wherever it stands alone, is the share of all entries.

    Args:
        groups: how many groups, >= 2 and at most as many as there are layers.

    The others are those of `grasp`; without `paper`, `published` and `proposals`, which must be left at their defaults.

    Raises:
        InputError: a value is out of its range.
    """

    groups: int = 3

    def __post_init__(self) -> None:
        check_settings(
            self,
            ("groups", self.groups >= 2, "must be at least 2; grasp learns one ratio for all layers"),
            ("published", not self.published, "must be empty: the published code has one ratio for all layers"),
            ("paper", not self.paper, "must be false: the paper has one ratio for all layers"),
            ("proposals", self.proposals is None, "must be null: groups are not screened"),
        )
        super().__post_init__()

    @property
    def layer_groups(self) -> int:
        """As many as the policy has ratios."""
        return self.groups

    def choose(self, state: GraspState) -> Answer:
        """Each group's ratio where the fitted surface is lowest in the mean of its draws, with a 95 % interval.

        Without a surface (no round, or no loss that depends on the ratios) it is the ratios in force, known to lie in the allowed
        range only. A single pass whose surface is flat keeps each group within `max_commit_change` of its ratio in force. The
        interval of `prune_ratio` is the mean of the groups' intervals, which is as wide as it can be.
        """
        surface = fit_surface(
            [(one.reference, *(c.by_group for c in one.candidates)) for one in state.rounds],
            [(one.losses_before, *(c.losses for c in one.candidates)) for one in state.rounds],
            stream(state.seed, "curve", len(state.rounds)),
        )
        lowest, highest = self.prune_ratio_min, self.prune_ratio_max
        flat = surface is None or surface.is_flat(stream(state.seed, "flat", len(state.rounds)))
        if surface is None:
            by_group = tuple(GroupRatio(one, lowest, highest) for one in state.ratios)
        else:
            found = zip(state.ratios, surface.best(), surface.intervals(lowest, highest), strict=True)
            settled = ((self._settled(ratio, best, flat=flat), low, high) for ratio, best, (low, high) in found)
            by_group = tuple(GroupRatio(one, min(low, one), max(high, one)) for one, low, high in settled)
        return Answer(
            prune_ratio=over_all(state.shares, [one.prune_ratio for one in by_group]),
            low=over_all(state.shares, [one.low for one in by_group]),
            high=over_all(state.shares, [one.high for one in by_group]),
            flat=flat,
            curve=() if surface is None else surface.points([one.prune_ratio for one in by_group]),
            by_group=by_group,
        )
