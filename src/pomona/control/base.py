"""What a controller is: it proposes prune ratios, sees how each changes the micro dev losses, and answers with one ratio.

The registry also holds the searches over whole runs (`search.py`), as a recipe names either in the same place.

A controller never sees a model. It is a frozen dataclass of hyperparameters; what evolves is a `ControllerState` that
goes into a checkpoint as JSON. The loop that drives one:

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
from dataclasses import dataclass

import torch

from pomona.control.answer import Answer
from pomona.control.handling import Handling
from pomona.control.search import Search
from pomona.control.sign_flip import gain_p_value
from pomona.registry import Registry


@dataclass(frozen=True)
class Candidate:
    """One prune ratio on trial.

    Args:
        prune_ratio: the ratio, in [0, 1].
        losses: what each micro dev example costs under the trial mask, lower is better, [N]: its mean loss in nats per token,
            unless something else rewards the run. None where it was not seen.
        reward: mean before minus mean on trial, over the examples seen; positive is better.
        p_value: one-sided, for "the gain over the examples seen is not above zero".
        by_group: its ratio for each group of layers, of which `prune_ratio` is the mean by the groups' shares; empty where one is
            for all.
    """

    prune_ratio: float
    losses: tuple[float | None, ...]
    reward: float
    p_value: float
    by_group: tuple[float, ...] = ()

    @property
    def seen(self) -> int:
        """Number of examples seen."""
        return sum(loss is not None for loss in self.losses)

    @classmethod
    def measured(
        cls, prune_ratio: float, losses_before: Sequence[float], losses: Sequence[float | None], generator: torch.Generator
    ) -> Candidate:
        """A candidate with the reward and p-value of its losses.

        Args:
            prune_ratio: the ratio.
            losses_before: [N], under the reference mask of its round.
            losses: [N], at least one of them seen.
            generator: for the test, where many examples were seen.
        """
        gains = [before - after for before, after in zip(losses_before, losses, strict=True) if after is not None]
        return cls(
            prune_ratio=prune_ratio,
            losses=tuple(None if loss is None else float(loss) for loss in losses),
            reward=math.fsum(gains) / len(gains),
            p_value=gain_p_value(gains, generator),
        )


@dataclass(frozen=True)
class Round:
    """What one round saw and decided.

    Args:
        index: from 0.
        step: optimizer steps taken before the round.
        losses_before: the same of each micro dev example under the round's reference mask, [N].
        candidates: those that were tried, in the order in which they were proposed.
        prune_ratio_before: ratio in force before the round.
        prune_ratio_after: ratio in force after it (recorded ratio, bounded).
        mask_prune_ratio: ratio of the mask that was committed, or None where nothing was.
        mean, deviation: the policy's parameters after the update; for a controller without a policy, those of where it believes the
            loss to be lowest.
        reference: what the reference mask is made of, with which the candidates are compared: a ratio for each group of layers, one
            alone for all. A mask selected in this round, or the one that was in force: `Controller.reference` says which.
        by_group: ratio in force after it for each group of layers; empty where one is for all.
    """

    index: int
    step: int
    losses_before: tuple[float, ...]
    candidates: tuple[Candidate, ...]
    prune_ratio_before: float
    prune_ratio_after: float
    mask_prune_ratio: float | None
    mean: float
    deviation: float
    reference: tuple[float, ...]
    by_group: tuple[float, ...] = ()

    @property
    def mask_ratios(self) -> tuple[float, ...] | None:
        """What the committed mask is made of: a ratio for each group of layers, one alone for all; None where none was."""
        return None if self.mask_prune_ratio is None else self.by_group or (self.mask_prune_ratio,)


@dataclass(frozen=True)
class GroupPolicy:
    """What evolves for one group of layers.

    Args:
        share: its share of all entries, in (0, 1].
        prune_ratio: its ratio in force.
        mean, deviation: the policy's parameters.
    """

    share: float
    prune_ratio: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class ControllerState:
    """What evolves in a run. JSON can hold it: `codec.py` writes and reads it.

    Args:
        seed: where every round's own random stream comes from.
        total_steps: optimizer steps of the whole run.
        mean, deviation: the policy's parameters; without a policy, of where the loss is believed to be lowest.
        prune_ratio: the ratio in force.
        rounds: all rounds so far.
        groups: the same for each group of layers, of which the three above are means by share; empty where one ratio is for all.
    """

    seed: int
    total_steps: int
    mean: float
    deviation: float
    prune_ratio: float
    rounds: tuple[Round, ...] = ()
    groups: tuple[GroupPolicy, ...] = ()

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio in force of each group of layers; one alone for all layers."""
        return tuple(one.prune_ratio for one in self.groups) or (self.prune_ratio,)


class Controller(ABC):
    """A way to find the prune ratio within a run. Subclasses are frozen dataclasses, one a file, registered in `controllers`."""

    @property
    def layer_groups(self) -> int:
        """For how many groups of neighbouring layers there is a ratio of their own; 1 by default: one is for all."""
        return 1

    @abstractmethod
    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> ControllerState:
        """The state before the first step.

        Args:
            seed: root of this controller's random streams.
            total_steps: optimizer steps of the run, >= 1.
            shares: each group's share of all entries, `layer_groups` of them; none at all stands for equal ones.
        """

    @abstractmethod
    def round_due(self, state: ControllerState, step: int) -> bool:
        """Whether a round is due after `step` optimizer steps (1 to `total_steps`)."""

    @abstractmethod
    def settle_step(self, total_steps: int) -> int:
        """The step from which the answer is in force and the mask is selected anew after each step.

        0: from the start (a given ratio). `total_steps`: never within this run (two passes: the answer is for another run).
        """

    @abstractmethod
    def propose(self, state: ControllerState) -> tuple[float, ...]:
        """The candidates of the next round, a function of the state alone (so that a resumed run proposes the same)."""

    def propose_by_group(self, state: ControllerState) -> tuple[tuple[float, ...], ...]:
        """The same with a ratio for each of the `layer_groups`: what masks on trial are made of."""
        return tuple((prune_ratio,) for prune_ratio in self.propose(state))

    def reference(self, state: ControllerState) -> tuple[float, ...] | None:
        """What the next round's candidates are compared with, as `propose_by_group` gives ratios; the ratios in force by default.

        A mask selected in the round itself is made of them, by the same importance as the candidates' masks. None: the mask that is
        in force, which was selected in an earlier round.
        """
        return state.ratios

    def held_ratios(self, state: ControllerState) -> tuple[float, ...]:
        """What the mask in force is made of, as `propose_by_group` gives ratios.

        Other than the ratios in force only where a controller commits a mask of another ratio, or starts unpruned.
        """
        committed = (one.mask_ratios for one in reversed(state.rounds) if one.mask_ratios is not None)
        return next(committed, (0.0,) * len(state.ratios) if self.handling.starts_unpruned else state.ratios)

    @property
    def wants_estimates(self) -> bool:
        """Whether `screen` is to be asked which of the proposed ratios are tried; False by default."""
        return False

    def screen(self, state: ControllerState, estimates: Sequence[float]) -> tuple[bool, ...]:
        """Which of the proposed ratios are tried; all by default.

        Args:
            state: as it was when `propose` was called.
            estimates: change of the loss under each one's mask by first order, nats per token, [G]; lower is better.
        """
        return (True,) * len(estimates)

    def first_part(self, n: int) -> int:
        """How many of the n micro dev examples are probed before `continues` is asked; all by default: it need not be asked."""
        return n

    def continues(
        self, state: ControllerState, losses_before: Sequence[float], losses: Sequence[Sequence[float]]
    ) -> tuple[bool, ...]:
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
        state: ControllerState,
        step: int,
        losses_before: Sequence[float],
        losses: Sequence[Sequence[float | None] | None],
    ) -> ControllerState:
        """Take in a round's losses; the new state's last round holds the decision.

        Args:
            state: as it was when `propose` was called.
            step: optimizer steps taken so far.
            losses_before: [N], under the mask that `reference` names; complete.
            losses: for each proposed ratio, in the order of `propose`, a row [N] with None where an example was not seen, or None
                where it was not tried.
        """

    @abstractmethod
    def choose(self, state: ControllerState) -> Answer:
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
        state: ControllerState,
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


def over_all(shares: Sequence[float], values: Sequence[float]) -> float:
    """The mean of a value of each group of layers by the groups' shares: of their prune ratios, the share of all entries."""
    return math.fsum(share * value for share, value in zip(shares, values, strict=True))


def shares_of(shares: Sequence[float], groups: int) -> tuple[float, ...]:
    """The groups' shares as `Controller.start` is given them; equal ones where none are given.

    Raises:
        ValueError: there are not as many as groups.
    """
    found = tuple(shares) or (1 / groups,) * groups
    if len(found) != groups:
        raise ValueError(f"expected {groups} shares, got {len(found)}")
    return found


controllers: Registry[Controller | Search] = Registry("controller")
