"""The `grasp` controller: the prune ratio learned while the merge is fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from pomona.control.base import ByRounds, Mode, clamp, controllers
from pomona.control.belief import believe
from pomona.control.curve_model import measured
from pomona.control.handling import Handling
from pomona.control.policy import Policy, UpdateSettings
from pomona.control.published import PUBLISHED, check_published
from pomona.control.published_rules import PublishedRules
from pomona.control.racing import LEAST_SURVIVORS, lowest_of_each_part, survivors
from pomona.control.rounds import Candidate, ControllerState, Round, check_finite, check_losses, check_settings, over_all, shares_of
from pomona.control.rules import Rules
from pomona.control.within_rounds import is_flat
from pomona.ratios import Answer
from pomona.seeding import derive_seed, stream

_NARROWEST = 1 / 10  # of the allowed range: the policy never stops exploring, because the answer uses all tried ratios
_WIDEST = 1 / 2
_ROUNDING = 1e-9
_LEAST_RACED = 8  # micro dev examples: half of fewer cannot show a significant difference
_POMONAS = Rules()


@dataclass(frozen=True)
class GraspState(ControllerState):
    """`policies`: the policy of each group of layers with its own ratio."""

    policies: tuple[Policy, ...] = ()


@controllers.register("grasp")
@dataclass(frozen=True)
class Grasp(ByRounds[GraspState]):
    """Learns the prune ratio online: a Gaussian policy proposes ratios, micro dev losses reward them, a posterior answers.

    Every `interval_steps` optimizer steps there is one round (GRASP LoRA, arXiv 2601.06702): draw ratios
    `x_g ~ N(mean, deviation^2)` in antithetic pairs `mean +- deviation z`, clamp them to the allowed range, and try the mask of
    each, with the reward `r_g = mean loss before - mean loss of the candidate`. The loss before is that of a new mask at the ratio
    in force: the mask in force was selected in an earlier round, and costs more for this reason alone. The policy ascends
    `policy.objective`. The best candidate is committed if its paired per-example gain passes a one-sided sign-flip test at
    `commit_level`, and the ratio in force moves towards it by at most `max_commit_change`. The answer is the ratio with the least
    expected shortfall, from all losses of all rounds, with an interval (`belief.py`). A single pass continues with weights trained
    at the ratio in force; if its curve is flat, the answer stays near that ratio.

    Two methods save probes (`racing.py`): a candidate that is significantly behind the best after half of the micro dev examples is
    not tried on the others; and if there are more `proposals` than `candidates`, a first-order estimate of the loss selects those
    that are tried. The policy is updated with the tried ratios.

    `published.py` lists the differences from the published code: `published` names behaviours of that code to use, and `paper=True`
    uses all of them.

    Args:
        prune_ratio_min: lowest ratio allowed, in [0, 1).
        prune_ratio_max: highest ratio allowed, in (`prune_ratio_min`, 1].
        prune_ratio_start: ratio in force before the first round (with `starts_unpruned`, only recorded, not applied), and the
            policy's first mean; in the allowed range.
        deviation_start: the policy's first deviation, a tenth to half of the allowed range (any value above 0 with `reinforce`);
            None: a third of the range, with `narrow_start` a sixth. A wider spread of tried ratios determines the curve better.
        interval_steps: optimizer steps between rounds, >= 1; None: 10, as published, and 6 in a single pass, whose search is
            shorter.
        candidates: ratios tried in a round, >= 2.
        learning_rate: learning rate of the policy, > 0.
        updates: steps of the policy on one round's rewards, >= 1.
        clip: half-width of the trusted interval of the density ratio, in (0, 1).
        kl: weight of the divergence from the round's old policy, >= 0.
        entropy: weight of the entropy bonus, >= 0.
        anchor: weight of the penalty on the distance of the mean from the ratio in force, >= 0.
        max_commit_change: largest move of the ratio in force in a round, and of the answer of a single pass whose curve is flat, in
            (0, 1].
        commit_level: level of the test that a commit must pass, in [0, 1); 0 is the paper's rule, reward >= 0. The level is not
            corrected for the choice of the best of several candidates, so a round of equal masks commits more often.
        mode: `single_pass` settles the ratio after `settle_fraction` of the run, which then finishes with this ratio; `two_pass`
            (the paper) learns the ratio in the whole run, for a second run from the start.
        settle_fraction: share of the run's steps in which a single pass searches, in (0, 1).
        race_level: level of the test that stops a candidate halfway, in [0, 1); 0 stops none. With fewer than 8 micro dev
            examples, or two candidates, none is stopped.
        proposals: ratios drawn in a round, of which `candidates` are tried; >= `candidates`. None: `candidates`, no screening.
        published: the published behaviours to use (`published.PUBLISHED`). Some make settings unused: `reinforce`: `updates`,
            `clip` and `kl`; `any_gain`: `commit_level`; `all_probed`: `race_level` and `proposals`.
        paper: use all of them, whatever `published` names; requires `two_pass`.

    Raises:
        InputError: a value is out of its range, or a name in `published` is unknown.
    """

    prune_ratio_min: float = 0.10
    prune_ratio_max: float = 0.80
    prune_ratio_start: float = 0.40
    deviation_start: float | None = None
    interval_steps: int | None = None
    candidates: int = 3
    learning_rate: float = 0.05
    updates: int = 4
    clip: float = 0.2
    kl: float = 0.04
    entropy: float = 0.01
    anchor: float = 0.05
    max_commit_change: float = 0.10
    commit_level: float = 0.10
    mode: Mode = "single_pass"
    settle_fraction: float = 0.6
    race_level: float = 0.5
    proposals: int | None = None
    published: tuple[str, ...] = ()
    paper: bool = False

    state_type = GraspState

    def __post_init__(self) -> None:
        check_published(self.published)
        low, high = self.prune_ratio_min, self.prune_ratio_max
        least, most = self._deviation_bounds
        check_settings(
            self,
            ("prune_ratio_min", 0 <= low < 1, "must be in [0, 1)"),
            ("prune_ratio_max", low < high <= 1, f"must be above prune_ratio_min {low} and at most 1"),
            ("prune_ratio_start", low <= self.prune_ratio_start <= high, f"must be in [{low}, {high}]"),
            ("deviation_start", self.deviation_start is None or 0 < self.deviation_start < math.inf, "must be above 0 and finite"),
            (
                "deviation_start",
                not self._rules.limits_deviation
                or self.deviation_start is None
                or least - _ROUNDING <= self.deviation_start <= most + _ROUNDING,
                f"must be in [{least:.4g}, {most:.4g}], a tenth to half of the allowed range",
            ),
            ("interval_steps", self.interval_steps is None or self.interval_steps >= 1, "must be at least 1"),
            ("candidates", self.candidates >= 2, "must be at least 2, because a reward is compared with the others of its group"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "must be above 0 and finite"),
            ("updates", self.updates >= 1, "must be at least 1"),
            ("clip", 0 < self.clip < 1, "must be in (0, 1)"),
            ("kl", 0 <= self.kl < math.inf, "must be at least 0 and finite"),
            ("entropy", 0 <= self.entropy < math.inf, "must be at least 0 and finite"),
            ("anchor", 0 <= self.anchor < math.inf, "must be at least 0 and finite"),
            ("max_commit_change", 0 < self.max_commit_change <= 1, "must be in (0, 1]"),
            ("commit_level", 0 <= self.commit_level < 1, "must be in [0, 1)"),
            ("mode", self.mode in get_args(Mode), f"must be one of {', '.join(get_args(Mode))}"),
            ("settle_fraction", 0 < self.settle_fraction < 1, "must be in (0, 1)"),
            ("race_level", 0 <= self.race_level < 1, "must be in [0, 1)"),
            (
                "proposals",
                self.proposals is None or self.proposals >= self.candidates,
                f"must be at least candidates {self.candidates}",
            ),
            ("mode", not (self.paper and self.mode == "single_pass"), "must be two_pass with paper: true"),
        )

    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> GraspState:
        """The state with the policy of each group at `prune_ratio_start`.

        Raises:
            ValueError: the numbers of shares and groups differ, or there is no step.
        """
        if total_steps < 1:
            raise ValueError(f"total_steps must be >= 1, got {total_steps}")
        deviation = self.deviation_start
        if deviation is None:
            deviation = self._rules.first_deviation(self.prune_ratio_max - self.prune_ratio_min)
        found, start = shares_of(shares, self.layer_groups), self.prune_ratio_start
        groups = len(found)
        return GraspState(seed, total_steps, found, (start,) * groups, policies=(Policy(start, deviation),) * groups)

    def propose(self, state: GraspState) -> tuple[float, ...]:
        """The share of all entries that each candidate prunes."""
        return tuple(over_all(state.shares, ratios) for ratios in self.propose_by_group(state))

    def propose_by_group(self, state: GraspState) -> tuple[tuple[float, ...], ...]:
        """The round's samples, clamped to the allowed range and rounded to four decimals."""
        return tuple(zip(*([self._rounded(sample) for sample in samples] for samples in self._samples(state)), strict=True))

    @property
    def handling(self) -> Handling:
        """The defaults, except for published behaviours."""
        return self._rules.handling

    def reference(self, state: GraspState) -> tuple[float, ...] | None:
        """The ratios of the mask in force, for a new mask."""
        return self._rules.reference(self.held_ratios(state))

    @property
    def wants_estimates(self) -> bool:
        """Whether more ratios are proposed than tried."""
        return self._drawn > self.candidates

    def screen(self, state: GraspState, estimates: Sequence[float]) -> tuple[bool, ...]:
        """The proposed ratio with the lowest estimate in each of `candidates` contiguous parts of the ratios.

        Raises:
            PomonaError: an estimate is not finite.
            ValueError: the numbers of estimates and proposed ratios differ.
        """
        prune_ratios = self.propose(state)
        if len(estimates) != len(prune_ratios):
            raise ValueError(f"expected {len(prune_ratios)} estimates, got {len(estimates)}")
        check_finite(estimates, f"an estimated loss is not finite in round {len(state.rounds)}")
        if not self.wants_estimates:
            return (True,) * len(estimates)
        return lowest_of_each_part(prune_ratios, estimates, self.candidates)

    def first_part(self, n: int) -> int:
        """Half of the examples, or all of them if no candidate can be stopped."""
        raced = not self._rules.probes_all and self.race_level > 0 and n >= _LEAST_RACED and self.candidates > LEAST_SURVIVORS
        return (n + 1) // 2 if raced else n

    def continues(self, state: GraspState, losses_before: Sequence[float], losses: Sequence[Sequence[float]]) -> tuple[bool, ...]:
        """All candidates except those significantly behind the best at `race_level`; see `racing.survivors`.

        Raises:
            PomonaError: a loss is not finite.
            ValueError: the rows differ in length.
        """
        if self._rules.probes_all:
            return (True,) * len(losses)
        index = len(state.rounds)
        check_finite([loss for row in (losses_before, *losses) for loss in row], f"a micro dev loss is not finite in round {index}")
        return survivors(losses_before, losses, self.race_level, stream(state.seed, "round", index, "race"))

    def observe(
        self,
        state: GraspState,
        step: int,
        losses_before: Sequence[float],
        losses: Sequence[Sequence[float | None] | None],
    ) -> GraspState:
        """Reward the tried candidates, update the policy, and decide whether to commit the best candidate.

        Only candidates measured on the most examples can be the best, because a stopped candidate was too far behind.

        Raises:
            PomonaError: a loss is not finite.
            ValueError: the losses do not fit the candidates, fewer than two were tried, or the number of micro dev examples has
                changed.
        """
        prune_ratios, by_group, index = self.propose(state), self.propose_by_group(state), len(state.rounds)
        check_losses(state, step, losses_before, losses, len(prune_ratios))
        group = {
            g: replace(
                Candidate.measured(prune_ratios[g], losses_before, row, stream(state.seed, "round", index, "test", g)),
                by_group=by_group[g] if self.layer_groups > 1 else (),
            )
            for g, row in enumerate(losses)
            if row is not None
        }
        candidates = tuple(group.values())
        policies = self._learned(state, tuple(group), [candidate.reward for candidate in candidates])
        after = replace(state, policies=policies)
        best, mask = max(candidates, key=lambda candidate: (candidate.seen, candidate.reward)), None
        if self._rules.commits(best, self.commit_level):
            moves = zip(state.ratios, best.by_group or (best.prune_ratio,), strict=True)
            after = replace(after, ratios=tuple(self._bounded(ratio, towards) for ratio, towards in moves))
            mask = self._rules.mask_ratio(best, after.prune_ratio)
        seen = Round(
            index=index,
            step=step,
            losses_before=tuple(map(float, losses_before)),
            candidates=candidates,
            prune_ratio_before=state.prune_ratio,
            prune_ratio_after=after.prune_ratio,
            mask_prune_ratio=mask,
            mean=over_all(state.shares, [policy.mean for policy in policies]),
            deviation=over_all(state.shares, [policy.deviation for policy in policies]),
            reference=self.reference(state) or self.held_ratios(state),
            by_group=after.ratios if self.layer_groups > 1 else (),
        )
        return replace(after, rounds=(*state.rounds, seen))

    def choose(self, state: GraspState) -> Answer:
        """The ratio with the least expected shortfall, a 95 % interval, and whether the ratios are indistinguishable.

        Without a round, or if no loss depends on the ratio, it is the ratio in force, with the allowed range as its interval. A
        single pass whose curve is flat stays within `max_commit_change` of the ratio in force, at which its weights were trained.
        """
        ratios, losses = measured(state.rounds)
        seed = derive_seed(state.seed, "belief", len(state.rounds))
        belief = believe(ratios, losses, self.prune_ratio_min, self.prune_ratio_max, seed)
        flat = is_flat(ratios, losses, stream(state.seed, "flat", len(state.rounds)))
        settled = state.prune_ratio if belief is None else self._settled(state.prune_ratio, belief.best(), flat=flat)
        prune_ratio = self._rules.answer(state.rounds, settled)
        if belief is None:
            return Answer(prune_ratio, self.prune_ratio_min, self.prune_ratio_max, flat=True)
        low, high = belief.interval()
        return Answer(
            prune_ratio, low=min(low, prune_ratio), high=max(high, prune_ratio), flat=flat, curve=belief.points(prune_ratio)
        )

    @property
    def _rules(self) -> Rules:
        """Pomona's rules, with the selected behaviours of the published code."""
        on = tuple(PUBLISHED) if self.paper else self.published
        return PublishedRules(on) if on else _POMONAS

    @property
    def _deviation_bounds(self) -> tuple[float, float]:
        """The policy's narrowest and widest deviation."""
        width = self.prune_ratio_max - self.prune_ratio_min
        return width * _NARROWEST, width * _WIDEST

    @property
    def _drawn(self) -> int:
        """Ratios drawn in a round."""
        return self.candidates if self._rules.probes_all or self.proposals is None else self.proposals

    def _samples(self, state: GraspState) -> list[list[float]]:
        """The next round's draws for each group of layers, before clamping."""
        names = [()] if self.layer_groups == 1 else [(group,) for group in range(self.layer_groups)]
        streams = (stream(state.seed, "round", len(state.rounds), "samples", *name) for name in names)
        drawn = (self._rules.draw(self._drawn, one) for one in streams)
        return [[policy.mean + policy.deviation * z for z in one] for policy, one in zip(state.policies, drawn, strict=True)]

    def _learned(self, state: GraspState, tried: Sequence[int], rewards: Sequence[float]) -> tuple[Policy, ...]:
        """The groups' policies after a round in which the proposals `tried` earned these rewards."""
        proposed = zip(*self.propose_by_group(state), strict=True)
        groups = zip(state.policies, self._samples(state), proposed, state.ratios, strict=True)
        return tuple(
            self._rules.learned(
                old, [samples[g] for g in tried], [ratios[g] for g in tried], rewards, in_force, self._update_settings
            )
            for old, samples, ratios, in_force in groups
        )

    @property
    def _update_settings(self) -> UpdateSettings:
        return UpdateSettings(
            learning_rate=self.learning_rate,
            updates=self.updates,
            clip=self.clip,
            kl=self.kl,
            entropy=self.entropy,
            anchor=self.anchor,
            mean_bounds=(self.prune_ratio_min, self.prune_ratio_max),
            deviation_bounds=self._deviation_bounds,
        )

    def _rounded(self, prune_ratio: float) -> float:
        """Rounded by the rules, within the allowed range."""
        return clamp(self._rules.rounded(prune_ratio), self.prune_ratio_min, self.prune_ratio_max)
