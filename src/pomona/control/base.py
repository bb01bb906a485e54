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

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, cast

from pomona.control.handling import Handling
from pomona.control.rounds import ControllerState, S, state_from_dict
from pomona.control.search import Search
from pomona.ratios import Answer
from pomona.registry import Registry


class Controller(ABC, Generic[S]):
    """A way to find the prune ratio within a run. Subclasses are frozen dataclasses, one a file, registered in `controllers`."""

    state_type: ClassVar[type[ControllerState]] = ControllerState
    """The class of its states."""

    def load_state(self, values: object) -> S:
        """The state that a checkpoint kept as JSON, which `state_to_dict` made.

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


controllers: Registry[Controller[Any] | Search] = Registry("controller")
