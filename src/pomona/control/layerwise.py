"""The `layerwise` controller: a prune ratio for each group of neighbouring layers, learned as `grasp` learns one for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pomona.control.answer import Answer, GroupRatio
from pomona.control.base import Candidate, ControllerState, GroupPolicy, controllers, over_all, shares_of
from pomona.control.grasp import Grasp
from pomona.control.policy import Policy, antithetic, grpo_update
from pomona.control.surface import fit_surface
from pomona.control.usable import check_settings
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

    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> ControllerState:
        """Every group's policy at `prune_ratio_start`.

        Raises:
            ValueError: there are not as many shares as groups.
        """
        state = super().start(seed, total_steps)
        found = shares_of(shares, self.groups)
        groups = tuple(GroupPolicy(share, state.prune_ratio, state.mean, state.deviation) for share in found)
        return _over_groups(state, groups)

    def propose(self, state: ControllerState) -> tuple[float, ...]:
        """The share of all entries that each candidate prunes."""
        shares = [one.share for one in state.groups]
        return tuple(over_all(shares, ratios) for ratios in self.propose_by_group(state))

    def propose_by_group(self, state: ControllerState) -> tuple[tuple[float, ...], ...]:
        """The round's samples, clamped to the allowed range and rounded to four decimals."""
        columns = ([self._rounded(sample) for sample in samples] for samples in self._samples_by_group(state))
        return tuple(zip(*columns, strict=True))

    def choose(self, state: ControllerState) -> Answer:
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
        shares = [one.share for one in state.groups]
        return Answer(
            prune_ratio=over_all(shares, [one.prune_ratio for one in by_group]),
            low=over_all(shares, [one.low for one in by_group]),
            high=over_all(shares, [one.high for one in by_group]),
            flat=flat,
            curve=() if surface is None else surface.points([one.prune_ratio for one in by_group]),
            by_group=by_group,
        )

    def _samples_by_group(self, state: ControllerState) -> list[list[float]]:
        """The next round's draws for each group, before they are clamped: antithetic pairs, which are so in every group."""
        generators = [stream(state.seed, "round", len(state.rounds), "samples", group) for group in range(self.groups)]
        return [
            [one.mean + one.deviation * z for z in antithetic(self.candidates, generator)]
            for one, generator in zip(state.groups, generators, strict=True)
        ]

    def _learned(self, state: ControllerState, tried: Sequence[int], rewards: Sequence[float]) -> ControllerState:
        groups = []
        for one, samples in zip(state.groups, self._samples_by_group(state), strict=True):
            old, drawn = Policy(one.mean, one.deviation), [samples[g] for g in tried]
            policy = grpo_update(old, drawn, rewards, one.prune_ratio, self._update_settings)
            groups.append(replace(one, mean=policy.mean, deviation=policy.deviation))
        return _over_groups(state, groups)

    def _moved(self, state: ControllerState, best: Candidate) -> ControllerState:
        groups = (
            replace(one, prune_ratio=self._bounded(one.prune_ratio, towards))
            for one, towards in zip(state.groups, best.by_group, strict=True)
        )
        return _over_groups(state, tuple(groups))


def _over_groups(state: ControllerState, groups: Sequence[GroupPolicy]) -> ControllerState:
    """The state with these groups, and their means by share."""
    shares = [one.share for one in groups]
    return replace(
        state,
        groups=tuple(groups),
        prune_ratio=over_all(shares, [one.prune_ratio for one in groups]),
        mean=over_all(shares, [one.mean for one in groups]),
        deviation=over_all(shares, [one.deviation for one in groups]),
    )
