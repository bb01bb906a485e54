"""The interface of a controller: it proposes prune ratios, observes their micro dev losses, and answers with one ratio.

The registry also holds the searches over whole runs (`search.py`), because a recipe names both in the same field.

A controller never sees a model. It is a frozen dataclass of hyperparameters; its state is a `ControllerState`, or its own subclass
of it, which a checkpoint stores as JSON. The loop that drives a controller:

    state = controller.start(seed, total_steps)
    before the first round: commit the mask of state.prune_ratio, unless controller.handling.starts_unpruned
    after each optimizer step, when controller.round_due(state, step):
        candidates = controller.propose_by_group(state)
        before = a mask selected now at controller.reference(state), as the candidates' masks are; None: the mask in force
        if controller.wants_estimates: try only the candidates that controller.screen(state, estimates) selects
        losses of the first controller.first_part(n) examples, before and of each tried candidate
        if there are more: losses of the others, before and of those that controller.continues(state, losses_before, losses) selects
        state = controller.observe(state, step, losses_before, losses_of_each_candidate)
        if state.rounds[-1].mask_prune_ratio is not None: commit the mask of that ratio, or of the groups' ratios in force
    from controller.settle_step(total_steps) on, after that step's round if one is due: the answer's ratio is in force
    answer = controller.choose(state)
    warnings = controller.diagnose(state, mask_changes)

While a mask is held, importance changes, and a new mask at the same ratio costs less than the mask in force. So the reference of
the candidates is a new mask too: then their losses differ only because of the ratio.
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
"""Decimals of a ratio: finer than any significant difference, so that reports show the exact ratio."""


class Controller(ABC, Generic[S]):
    """A way to find the prune ratio within a run. Subclasses are frozen dataclasses, one per file, registered in `controllers`."""

    state_type: ClassVar[type[ControllerState]] = ControllerState
    """The class of the states."""

    def load_state(self, values: object) -> S:
        """The state from the JSON of its `dataclasses.asdict` in a checkpoint.

        Raises:
            InputError: a key is unknown or missing, or a value has the wrong type.
        """
        return cast("S", state_from_dict(self.state_type, values))

    @property
    def layer_groups(self) -> int:
        """The number of groups of neighbouring layers with their own ratio; default 1: one ratio for all layers."""
        return 1

    @abstractmethod
    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> S:
        """The state before the first step.

        Args:
            seed: root seed of this controller's random streams.
            total_steps: optimizer steps of the run, >= 1.
            shares: each group's share of all entries, `layer_groups` of them; empty: equal shares.
        """

    @abstractmethod
    def round_due(self, state: S, step: int) -> bool:
        """Whether a round is due after `step` optimizer steps (1 to `total_steps`)."""

    @abstractmethod
    def settle_step(self, total_steps: int) -> int:
        """The step from which the answer is in force and a new mask is selected after each step.

        0: from the start (a given ratio). `total_steps`: never within this run (two passes: the answer is for another run).
        """

    @abstractmethod
    def propose(self, state: S) -> tuple[float, ...]:
        """The candidates of the next round; they depend only on the state, so that a resumed run proposes the same."""

    def propose_by_group(self, state: S) -> tuple[tuple[float, ...], ...]:
        """The candidates of `propose` with a ratio for each of the `layer_groups`, for their masks."""
        return tuple((prune_ratio,) for prune_ratio in self.propose(state))

    def reference(self, state: S) -> tuple[float, ...] | None:
        """The ratios by group of the next round's reference mask; default: the ratios in force.

        The reference mask is selected in the round itself, with the same importance as the candidates' masks. None: the mask in
        force, which was selected in an earlier round.
        """
        return state.ratios

    def held_ratios(self, state: S) -> tuple[float, ...]:
        """The ratios by group of the mask in force.

        They differ from the ratios in force only if a controller commits a mask of another ratio, or starts unpruned.
        """
        committed = (one.mask_ratios for one in reversed(state.rounds) if one.mask_ratios is not None)
        return next(committed, (0.0,) * len(state.ratios) if self.handling.starts_unpruned else state.ratios)

    @property
    def wants_estimates(self) -> bool:
        """Whether `screen` selects the proposed ratios that are tried; default: False."""
        return False

    def screen(self, state: S, estimates: Sequence[float]) -> tuple[bool, ...]:
        """Whether each proposed ratio is tried; default: all.

        Args:
            state: the state of the call of `propose`.
            estimates: first-order estimate of the change of the loss under each mask, nats per token, [G]; lower is better.
        """
        return (True,) * len(estimates)

    def first_part(self, n: int) -> int:
        """The number of the n micro dev examples that are probed before `continues` is called; default: all, without a call."""
        return n

    def continues(self, state: S, losses_before: Sequence[float], losses: Sequence[Sequence[float]]) -> tuple[bool, ...]:
        """Whether each candidate is also probed on the other examples; at least two; default: all.

        Args:
            state: the state of the call of `propose`.
            losses_before: losses of the first part of the examples under the reference mask, [n].
            losses: a row of n for each tried candidate.
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
        """Process a round's losses; the last round of the new state holds the decision.

        Args:
            state: the state of the call of `propose`.
            step: optimizer steps taken so far.
            losses_before: [N], under the mask of `reference`; complete.
            losses: for each proposed ratio, in the order of `propose`, a row [N] with None for an example that was not measured,
                or None for a ratio that was not tried.
        """

    @abstractmethod
    def choose(self, state: S) -> Answer:
        """The answer, from all rounds so far; without a round, the ratio in force."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """1: the run that learned the ratio finishes with it. 2: a second run trains with it from the start."""

    @property
    def handling(self) -> Handling:
        """The treatment of masks and moments while this controller searches; see `Handling` for the defaults."""
        return Handling()

    def diagnose(
        self,
        state: S,
        mask_changes: Sequence[float],
        *,
        dev_check: Sequence[tuple[float, float, float]] = (),
        cleared: Sequence[float] = (),
    ) -> list[str]:
        """Warnings about the search, one sentence each with the setting to change; default: none.

        Args:
            state: after the last round.
            mask_changes: for each mask committed by a round, in order, the share of all factor entries whose mask changed.
            dev_check: (prune ratio, cost on the micro dev set, cost on the dev set) of a few ratios at the end of the search;
                costs may be relative. Empty if not measured.
            cleared: for each of these masks the share of all entries that it newly pruned; empty if unknown.
        """
        return []


class ByRounds(Controller[S]):
    """A controller with a round at a fixed interval of optimizer steps.

    Args:
        mode: `single_pass` settles the ratio after `settle_fraction` of the run, which then finishes with this ratio; `two_pass`
            (GRASP LoRA, arXiv 2601.06702) learns the ratio in the whole run, for a second run from the start.
        interval_steps: optimizer steps between rounds; None is 10, as published, and 6 in a single pass, whose search is shorter.
        settle_fraction: share of the run's steps in which a single pass searches, in (0, 1).
        prune_ratio_min, prune_ratio_max: the allowed range.
        max_commit_change: largest move of the ratio in force.
        has_policy: whether the controller has a policy, whose settings a warning may name.
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
        """Optimizer steps between rounds: `interval_steps`, or its default."""
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
        """The answer for a curve that is lowest at `best`, with this ratio in force."""
        return self._bounded(prune_ratio, best) if flat and self.mode == "single_pass" else self._rounded(best)

    def _rounded(self, prune_ratio: float) -> float:
        """To `DECIMALS`, within the allowed range."""
        return clamp(round(prune_ratio, DECIMALS), self.prune_ratio_min, self.prune_ratio_max)


def clamp(value: float, low: float, high: float) -> float:
    """`value`, moved into [low, high]."""
    return min(max(value, low), high)


controllers: Registry[Controller[Any] | Search] = Registry("controller")
