"""What a controller is: it proposes prune ratios, sees how each changes the micro dev losses, and answers with one ratio.

The registry also holds the searches over whole runs (`search.py`), as a recipe names either in the same place.

A controller never sees a model. It is a frozen dataclass of hyperparameters; what evolves is a `ControllerState`, or a subclass of
it of the controller's own, which goes into a checkpoint as JSON. The loop that drives one:

    state = controller.start(seed, total_steps)
    before the first round: commit the mask of state.prune_ratio, unless controller.handling.starts_unpruned
    after each optimizer step, when controller.round_due(state, step):
        candidates = controller.propose_by_group(state)
        before = a mask selected now at controller.reference(state), as the candidates' masks are; None: the mask in force
        if controller.wants_estimates: try those only that controller.screen(state, estimates) names
        losses of the first controller.first_part(n) examples, before and of each candidate that is tried
        if that is not all: losses of the others, before and of those that controller.continues(state, losses_before, losses) names
        state = controller.observe(state, step, losses_before, losses_of_each_candidate)
        if state.rounds[-1].mask_prune_ratio is not None: commit the mask of that ratio, or of the groups' ratios in force
    from controller.settle_step(total_steps) on, after that step's round if one is due: the ratio is that of the answer
    answer = controller.choose(state)
    warnings = controller.diagnose(state, mask_changes)

While a mask is held, importance moves on, and a mask selected now at the same ratio costs less than the one in force. So candidates
are compared with a fresh mask too: what their losses then differ by is the ratio alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Literal, cast

from pomona.control.diagnose import diagnose_search
from pomona.control.handling import Handling
from pomona.control.rounds import ControllerState, S, state_from_dict
from pomona.control.search import Search
from pomona.ratios import Answer
from pomona.registry import Registry

Mode = Literal["single_pass", "two_pass"]

DECIMALS = 4
"""Of a ratio: far finer than ratios can be told apart, so that reports show what was used."""


class Controller(ABC, Generic[S]):
    """A way to find the prune ratio within a run. Subclasses are frozen dataclasses, one a file, registered in `controllers`."""

    state_type: ClassVar[type[ControllerState]] = ControllerState
    """The class of its states."""

    def load_state(self, values: object) -> S:
        """The state whose `dataclasses.asdict` a checkpoint kept as JSON.

        Raises:
            InputError: a key is unknown or missing, or a value has the wrong type.
        """
        return cast("S", state_from_dict(self.state_type, values))

    @property
    def layer_groups(self) -> int:
        """For how many groups of neighbouring layers there is a ratio of their own; 1 by default: one is for all."""
        return 1

    @abstractmethod
    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> S:
        """The state before the first step.

        Args:
            seed: root of this controller's random streams.
            total_steps: optimizer steps of the run, >= 1.
            shares: each group's share of all entries, `layer_groups` of them; none at all stands for equal ones.
        """

    @abstractmethod
    def round_due(self, state: S, step: int) -> bool:
        """Whether a round is due after `step` optimizer steps (1 to `total_steps`)."""

    @abstractmethod
    def settle_step(self, total_steps: int) -> int:
        """The step from which the answer is in force and the mask is selected anew after each step.

        0: from the start (a given ratio). `total_steps`: never within this run (two passes: the answer is for another run).
        """

    @abstractmethod
    def propose(self, state: S) -> tuple[float, ...]:
        """The candidates of the next round, a function of the state alone (so that a resumed run proposes the same)."""

    def propose_by_group(self, state: S) -> tuple[tuple[float, ...], ...]:
        """The same with a ratio for each of the `layer_groups`: what masks on trial are made of."""
        return tuple((prune_ratio,) for prune_ratio in self.propose(state))

    def reference(self, state: S) -> tuple[float, ...] | None:
        """What the next round's candidates are compared with, as `propose_by_group` gives ratios; the ratios in force by default.

        A mask selected in the round itself is made of them, by the same importance as the candidates' masks. None: the mask that is
        in force, which was selected in an earlier round.
        """
        return state.ratios

    def held_ratios(self, state: S) -> tuple[float, ...]:
        """What the mask in force is made of, as `propose_by_group` gives ratios.

        Other than the ratios in force only where a controller commits a mask of another ratio, or starts unpruned.
        """
        committed = (one.mask_ratios for one in reversed(state.rounds) if one.mask_ratios is not None)
        return next(committed, (0.0,) * len(state.ratios) if self.handling.starts_unpruned else state.ratios)

    @property
    def wants_estimates(self) -> bool:
        """Whether `screen` is to be asked which of the proposed ratios are tried; False by default."""
        return False

    def screen(self, state: S, estimates: Sequence[float]) -> tuple[bool, ...]:
        """Which of the proposed ratios are tried; all by default.

        Args:
            state: as it was when `propose` was called.
            estimates: change of the loss under each one's mask by first order, nats per token, [G]; lower is better.
        """
        return (True,) * len(estimates)

    def first_part(self, n: int) -> int:
        """How many of the n micro dev examples are probed before `continues` is asked; all by default: it need not be asked."""
        return n

    def continues(self, state: S, losses_before: Sequence[float], losses: Sequence[Sequence[float]]) -> tuple[bool, ...]:
        """Which candidates are probed on the other examples too, at least two; all by default.

        Args:
            state: as it was when `propose` was called.
            losses_before: of the first part of the examples, under the reference mask, [n].
            losses: a row of n for each candidate that is tried.
        """
        return (True,) * len(losses)

    @abstractmethod
    def observe(
        self,
        state: S,
        step: int,
        losses_before: Sequence[float],
        losses: Sequence[Sequence[float | None] | None],
    ) -> S:
        """Take in a round's losses; the new state's last round holds the decision.

        Args:
            state: as it was when `propose` was called.
            step: optimizer steps taken so far.
            losses_before: [N], under the mask that `reference` names; complete.
            losses: for each proposed ratio, in the order of `propose`, a row [N] with None where an example was not seen, or None
                where it was not tried.
        """

    @abstractmethod
    def choose(self, state: S) -> Answer:
        """The answer, from all rounds so far; with no round, the ratio that is in force."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """1: the run that learned the ratio finishes under it. 2: a second run trains from the start under it."""

    @property
    def handling(self) -> Handling:
        """How the run treats masks and moments while this controller searches; see `Handling` for the defaults."""
        return Handling()

    def diagnose(
        self,
        state: S,
        mask_changes: Sequence[float],
        *,
        dev_check: Sequence[tuple[float, float, float]] = (),
        cleared: Sequence[float] = (),
    ) -> list[str]:
        """What went wrong with the search, one sentence each with what to change; none by default.

        Args:
            state: after the last round.
            mask_changes: for each mask committed by a round, in order, the share of all factor entries that changed sides.
            dev_check: (prune ratio, cost on the micro dev set, cost on the dev set) of a few ratios when the search ended; costs
                may be relative. Empty where it was not measured.
            cleared: for each of these masks the share of all entries that it newly pruned; empty where it is not known.
        """
        return []


class ByRounds(Controller[S]):
    """A controller with a round every so many optimizer steps.

    Args:
        mode: `single_pass` settles the ratio after `settle_fraction` of the run, which then finishes under it; `two_pass` (GRASP
            LoRA, arXiv 2601.06702) learns it in the whole run, for a second run from the start.
        interval_steps: optimizer steps between rounds; None is 10, as published, and 6 in a single pass, whose search is shorter.
        settle_fraction: share of the run's steps in which a single pass searches, in (0, 1).
        prune_ratio_min, prune_ratio_max: the allowed range.
        max_commit_change: most that the ratio in force moves at a time.
        has_policy: whether there is a policy, whose settings a warning may name.
    """

    mode: Mode
    interval_steps: int | None
    settle_fraction: float
    prune_ratio_min: float
    prune_ratio_max: float
    max_commit_change: float
    has_policy: ClassVar[bool] = True

    def round_due(self, state: S, step: int) -> bool:
        """Every `interval_steps` steps, up to and including `settle_step`."""
        return step % self.steps_between == 0 and step <= self.settle_step(state.total_steps)

    def settle_step(self, total_steps: int) -> int:
        """`floor(settle_fraction * total_steps)`, at least 1, in a single pass; `total_steps` in two."""
        if self.mode == "two_pass":
            return total_steps
        return max(1, math.floor(round(self.settle_fraction * total_steps, 9)))

    @property
    def passes(self) -> int:
        """1 for `single_pass`, 2 for `two_pass`."""
        return 1 if self.mode == "single_pass" else 2

    @property
    def steps_between(self) -> int:
        """Optimizer steps between rounds: `interval_steps`, or what it is by default."""
        return self.interval_steps or (10 if self.mode == "two_pass" else 6)

    def diagnose(
        self,
        state: S,
        mask_changes: Sequence[float],
        *,
        dev_check: Sequence[tuple[float, float, float]] = (),
        cleared: Sequence[float] = (),
    ) -> list[str]:
        """See `diagnose.diagnose_search`."""
        return diagnose_search(
            state,
            self.choose(state),
            mask_changes,
            first_mask=self.held_ratios(replace(state, rounds=())) if self.handling.starts_unpruned else (),
            prune_ratio_min=self.prune_ratio_min,
            prune_ratio_max=self.prune_ratio_max,
            dev_check=dev_check,
            cleared=cleared,
            policy=self.has_policy,
        )

    def _bounded(self, prune_ratio: float, towards: float) -> float:
        """The ratio in force, moved towards another one by at most `max_commit_change`."""
        return self._rounded(clamp(towards, prune_ratio - self.max_commit_change, prune_ratio + self.max_commit_change))

    def _settled(self, prune_ratio: float, best: float, *, flat: bool) -> float:
        """The answer, with this ratio in force, of a curve that is lowest at `best`."""
        return self._bounded(prune_ratio, best) if flat and self.mode == "single_pass" else self._rounded(best)

    def _rounded(self, prune_ratio: float) -> float:
        """To `DECIMALS`, within the allowed range."""
        return clamp(round(prune_ratio, DECIMALS), self.prune_ratio_min, self.prune_ratio_max)


def clamp(value: float, low: float, high: float) -> float:
    """`value`, moved into [low, high]."""
    return min(max(value, low), high)


controllers: Registry[Controller[Any] | Search] = Registry("controller")
