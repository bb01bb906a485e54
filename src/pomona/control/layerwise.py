"""The `layerwise` controller: learns a prune ratio for each group of neighbouring layers with the method of `grasp`."""

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
    """Learns a prune ratio for each of several groups of neighbouring layers, with as many probes per round as `grasp`.

    The policy is a normal distribution with a diagonal covariance: a candidate is a ratio for every group, and all groups share
    its reward. Each group's mean and deviation ascend the objective of `grasp` with the group's own density ratio, which is clipped
    separately, as in GRPO for each token of an answer (arXiv 2402.03300, section 4.1); with a diagonal covariance the divergence
    and the entropy are sums over groups, so the groups' updates are independent except for the advantages. A commit moves each
    group's ratio towards the best candidate's by at most `max_commit_change`. The answer is the minimum of a surface fitted to all
    losses of all rounds, averaged over bootstrap draws (`surface.py`); groups get different coefficients only if that improves the
    prediction of other rounds.

    A single `prune_ratio` is always the share of all entries.

    Args:
        groups: number of groups, >= 2 and at most the number of layers.

    The other arguments are those of `grasp`, except `paper`, `published` and `proposals`, which must keep their defaults.

    Raises:
        InputError: a value is out of its range.
    """

    groups: int = 3

    def __post_init__(self) -> None:
        check_settings(
            self,
            ("groups", self.groups >= 2, "must be at least 2; use grasp for one ratio for all layers"),
            ("published", not self.published, "must be empty: the published code has one ratio for all layers"),
            ("paper", not self.paper, "must be false: the paper has one ratio for all layers"),
            ("proposals", self.proposals is None, "must be null: groups are not screened"),
        )
        super().__post_init__()

    @property
    def layer_groups(self) -> int:
        """The number of groups."""
        return self.groups

    def choose(self, state: GraspState) -> Answer:
        """Each group's ratio at the minimum of the fitted surface, averaged over its draws, with a 95 % interval.

        Without a surface (no round, or no loss depends on the ratios), these are the ratios in force, with the allowed range as
        their intervals. A single pass whose surface is flat keeps each group within `max_commit_change` of its ratio in force. The
        interval of `prune_ratio` is the mean of the groups' intervals, the widest possible interval.
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
