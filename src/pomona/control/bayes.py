"""The `bayes` controller: a posterior of the loss as a function of the prune ratio chooses the probes and the answer.

Axes: O outcomes, S draws of the curve, J ratios of a round, M possible ratios, P points of the allowed range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, get_args

import numpy as np
from jaxtyping import Float64

from pomona.control.base import DECIMALS, ByRounds, Mode, controllers
from pomona.control.belief import Belief, believe, shortfall
from pomona.control.curve_model import lasting_features, measured
from pomona.control.rounds import Candidate, ControllerState, Round, check_losses, check_settings
from pomona.control.within_rounds import is_flat
from pomona.ratios import Answer
from pomona.seeding import derive_seed, stream

Array = np.ndarray

_OUTCOMES, _DRAWS = 48, 400
_MAY_BE_TRIED = 15
MOST_RATIOS = _MAY_BE_TRIED - 1
"""The largest number of ratios of a round besides its reference."""

_COARSER = 4


@controllers.register("bayes")
@dataclass(frozen=True)
class Bayes(ByRounds[ControllerState]):
    """Learns the prune ratio by experimental design: each probe is chosen for its expected information about the answer.

    Each round compares the micro dev losses of `candidates` ratios with those of ratio 0 (no pruning), so a reward is the gain over
    no pruning. The first round's ratios are evenly spaced over the allowed range. Later rounds use a posterior over curves
    (`belief.py`: flat, lines, parabolas and cliffs, by their evidence; lasting differences between examples count as noise), which
    predicts the outcomes of a round; the round with the most information about the answer is chosen (`next_ratios`). After each
    round the ratio in force moves towards the best ratio by at most `max_commit_change`, unless the curve is flat. The answer is
    the ratio with the least expected shortfall, with a 95 % interval. A single pass continues with weights that were trained at
    the ratio in force; if its curve is flat, the answer stays near that ratio.

    Args:
        prune_ratio_min: lowest ratio of an answer, in [0, 1).
        prune_ratio_max: highest ratio allowed, in (`prune_ratio_min`, 1].
        prune_ratio_start: ratio in force before the first round, in the allowed range.
        interval_steps: optimizer steps between rounds, >= 1; None: 10 with two passes, 6 in a single pass.
        candidates: ratios tried in a round besides ratio 0, 2 to 14.
        max_commit_change: largest move of the ratio in force in a round, and of the answer of a single pass whose curve is flat, in
            (0, 1].
        mode: `single_pass` settles the ratio after `settle_fraction` of the run, which then finishes with this ratio;
            `two_pass` learns the ratio in the whole run, for a second run from the start.
        settle_fraction: share of the run's steps in which a single pass searches, in (0, 1).

    Raises:
        InputError: a value is out of its range.
    """

    prune_ratio_min: float = 0.10
    prune_ratio_max: float = 0.80
    prune_ratio_start: float = 0.40
    interval_steps: int | None = None
    candidates: int = 3
    max_commit_change: float = 0.10
    mode: Mode = "single_pass"
    settle_fraction: float = 0.6

    has_policy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        low, high = self.prune_ratio_min, self.prune_ratio_max
        check_settings(
            self,
            ("prune_ratio_min", 0 <= low < 1, "must be in [0, 1)"),
            ("prune_ratio_max", low < high <= 1, f"must be above prune_ratio_min {low} and at most 1"),
            ("prune_ratio_start", low <= self.prune_ratio_start <= high, f"must be in [{low}, {high}]"),
            ("interval_steps", self.interval_steps is None or self.interval_steps >= 1, "must be at least 1"),
            ("candidates", 2 <= self.candidates <= MOST_RATIOS, f"must be from 2 to {MOST_RATIOS}"),
            ("max_commit_change", 0 < self.max_commit_change <= 1, "must be in (0, 1]"),
            ("mode", self.mode in get_args(Mode), f"must be one of {', '.join(get_args(Mode))}"),
            ("settle_fraction", 0 < self.settle_fraction < 1, "must be in (0, 1)"),
        )

    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> ControllerState:
        """The state with `prune_ratio_start` in force."""
        if total_steps < 1:
            raise ValueError(f"total_steps must be >= 1, got {total_steps}")
        return ControllerState(seed, total_steps, shares=(1.0,), ratios=(self.prune_ratio_start,))

    def reference(self, state: ControllerState) -> tuple[float, ...]:
        """Ratio 0: no pruning."""
        return (0.0,)

    def propose(self, state: ControllerState) -> tuple[float, ...]:
        """The most informative ratios, in rising order; evenly spaced in the first round, or if there is no posterior yet."""
        return _proposed(self, state.seed, state.rounds)

    def observe(
        self,
        state: ControllerState,
        step: int,
        losses_before: Sequence[float],
        losses: Sequence[Sequence[float | None] | None],
    ) -> ControllerState:
        """Process the losses, and move the ratio in force towards the best ratio, unless the ratios are indistinguishable.

        Raises:
            PomonaError: a loss is not finite.
            ValueError: the losses do not fit the candidates, fewer than two were tried, or the number of micro dev examples has
                changed.
        """
        prune_ratios, index = self.propose(state), len(state.rounds)
        check_losses(state, step, losses_before, losses, len(prune_ratios))
        candidates = tuple(
            Candidate.measured(prune_ratio, losses_before, row, stream(state.seed, "round", index, "test", g))
            for g, (prune_ratio, row) in enumerate(zip(prune_ratios, losses, strict=True))
            if row is not None
        )
        seen = Round(
            index=index,
            step=step,
            losses_before=tuple(map(float, losses_before)),
            candidates=candidates,
            prune_ratio_before=state.prune_ratio,
            prune_ratio_after=state.prune_ratio,
            mask_prune_ratio=None,
            mean=state.rounds[-1].mean if state.rounds else self.prune_ratio_start,
            deviation=0.0,
            reference=(0.0,),
        )
        rounds = (*state.rounds, seen)
        belief = _believed(self, state.seed, rounds)
        best, deviation = (seen.mean, 0.0) if belief is None else (self._rounded(belief.best()), belief.deviation())
        after = state.prune_ratio if self._is_flat(state.seed, rounds) else self._bounded(state.prune_ratio, best)
        mask = None if after == state.prune_ratio else after
        seen = replace(seen, prune_ratio_after=after, mask_prune_ratio=mask, mean=best, deviation=deviation)
        return replace(state, ratios=(after,), rounds=(*state.rounds, seen))

    def choose(self, state: ControllerState) -> Answer:
        """The ratio with the least expected shortfall, a 95 % interval, and whether the ratios are indistinguishable.

        Without a round, or if no loss depends on the ratio, it is the ratio in force, with the allowed range as its interval. A
        single pass whose curve is flat stays within `max_commit_change` of the ratio in force, at which it was trained.
        """
        belief = _believed(self, state.seed, state.rounds)
        if belief is None:
            return Answer(state.prune_ratio, self.prune_ratio_min, self.prune_ratio_max, flat=True)
        flat = self._is_flat(state.seed, state.rounds)
        best = self._settled(state.prune_ratio, belief.best(), flat=flat)
        low, high = belief.interval()
        return Answer(best, low=min(low, best), high=max(high, best), flat=flat, curve=belief.points(best))

    def _is_flat(self, seed: int, rounds: tuple[Round, ...]) -> bool:
        return is_flat(*measured(rounds), stream(seed, "flat", len(rounds)))


# Functions of the state alone, called several times between two rounds.


@lru_cache(maxsize=4)
def _believed(controller: Bayes, seed: int, rounds: tuple[Round, ...]) -> Belief | None:
    named = derive_seed(seed, "belief", len(rounds))
    return believe(*measured(rounds), controller.prune_ratio_min, controller.prune_ratio_max, named)


@lru_cache(maxsize=4)
def _proposed(controller: Bayes, seed: int, rounds: tuple[Round, ...]) -> tuple[float, ...]:
    belief = _believed(controller, seed, rounds)
    if belief is None:
        spread = np.linspace(controller.prune_ratio_min, controller.prune_ratio_max, controller.candidates + 1)[1:]
    else:
        spread = next_ratios(belief, 0.0, controller.candidates, derive_seed(seed, "design", len(rounds)))
    return tuple(round(float(one), DECIMALS) for one in spread)


# Which ratios to try next


def next_ratios(belief: Belief, reference: float, wanted: int, seed: int) -> tuple[float, ...]:
    """The ratios to try besides the reference, in rising order: those with the most expected information about the answer.

    The expected value of a round: outcomes are drawn from the posterior, each outcome reweights the draws of the curve, and the
    expected shortfall of the then best answer, averaged over the outcomes, is the value that the round would leave. Ratios are
    added greedily, each time the ratio that leaves the least.

    Args:
        belief: the posterior.
        reference: the ratio that is always measured.
        wanted: the number of ratios, 1 to `MOST_RATIOS`; they differ from each other and from the reference.
        seed: seed of the outcomes.
    """
    may_be_tried = np.linspace(belief.low, belief.high, _MAY_BE_TRIED)
    may_be_tried = np.append(may_be_tried[np.abs(may_be_tried - reference) > 1e-9], reference)
    left = _Predicted(belief, may_be_tried, wanted + 1, np.random.default_rng(seed))
    chosen = [len(may_be_tried) - 1]
    for _ in range(wanted):
        others = [m for m in range(len(may_be_tried)) if m not in chosen]
        chosen.append(min(others, key=lambda m: left.expected_shortfall([*chosen, m])))
    return tuple(sorted(float(may_be_tried[m]) for m in chosen[1:]))


class _Predicted:
    """Draws of the curve and outcomes of a round, the same for all compared ratios."""

    def __init__(self, belief: Belief, may_be_tried: Float64[Array, " M"], measured: int, random: np.random.Generator) -> None:
        draws = random.choice(len(belief.coefficients_SF), _DRAWS, replace=False)
        lasting = belief.lasting_S2[draws] @ lasting_features(may_be_tried, belief.low, belief.high).T
        self._seen_SM = belief.curves(may_be_tried)[draws] + lasting
        self._shortfall_SP = shortfall(belief.curves(belief.grid[::_COARSER])[draws])
        self._deviation_M = np.sqrt(belief.noise.probe(may_be_tried) / belief.n)
        self._noise_OJ = random.standard_normal((_OUTCOMES, measured))

    def expected_shortfall(self, ratios: list[int]) -> float:
        """The expected shortfall that a round at these ratios would leave."""
        deviation_J = self._deviation_M[ratios]
        seen_SJ = self._seen_SM[:, ratios]
        outcome_OJ = seen_SJ[:_OUTCOMES] + self._noise_OJ[:, : len(ratios)] * deviation_J
        # Each round has its own level: only differences within a round count.
        weight_J = 1 / deviation_J**2
        off_OSJ = outcome_OJ[:, None] - seen_SJ
        off_OSJ -= (off_OSJ * weight_J).sum(axis=-1, keepdims=True) / weight_J.sum()
        log_likelihood_OS = -0.5 * (off_OSJ**2 * weight_J).sum(axis=-1)
        share_OS = np.exp(log_likelihood_OS - log_likelihood_OS.max(axis=1, keepdims=True))
        share_OS /= share_OS.sum(axis=1, keepdims=True)
        return float((share_OS @ self._shortfall_SP).min(axis=1).mean())
