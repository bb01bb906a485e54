"""What a controller is: it proposes prune ratios, sees how each changes the micro dev losses, and answers with one ratio.

The registry also holds the searches over whole runs (`search.py`), as a recipe names either in the same place.

A controller never sees a model. It is a frozen dataclass of hyperparameters; what evolves is a `ControllerState` that
goes into a checkpoint as JSON. The loop that drives one:

    state = controller.start(seed, total_steps)
    before the first round: commit the mask of state.prune_ratio
    after each optimizer step, when controller.round_due(state, step):
        candidates = controller.propose(state)
        if controller.wants_estimates: try those only that controller.screen(state, estimates) names
        losses of the first controller.first_part(n) examples, before and of each candidate that is tried
        if that is not all: losses of the others, before and of those that controller.continues(state, losses_before, losses) names
        state = controller.observe(state, step, losses_before, losses_of_each_candidate)
        if state.rounds[-1].mask_prune_ratio is not None: commit the mask of that ratio
    from controller.settle_step(total_steps) on, after that step's round if one is due: the ratio is that of the answer
    answer = controller.choose(state)
    warnings = controller.diagnose(state, mask_changes)
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import torch

from pomona.control.answer import Answer
from pomona.control.search import Search
from pomona.control.sign_flip import gain_p_value
from pomona.errors import InputError, suggest
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
    """

    prune_ratio: float
    losses: tuple[float | None, ...]
    reward: float
    p_value: float

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
            losses_before: [N], with the committed mask.
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
        losses_before: the same of each micro dev example with the committed mask, [N].
        candidates: those that were tried, in the order in which they were proposed.
        prune_ratio_before: ratio in force before the round.
        prune_ratio_after: ratio in force after it (recorded ratio, bounded).
        mask_prune_ratio: ratio of the mask that was committed, or None where nothing was.
        mean, deviation: the policy's parameters after the update; for a controller without a policy, the ratio and 0.
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


@dataclass(frozen=True)
class ControllerState:
    """What evolves in a run. JSON can hold it: `state_to_dict` and `state_from_dict` are inverse to each other.

    Args:
        seed: where every round's own random stream comes from.
        total_steps: optimizer steps of the whole run.
        mean, deviation: the policy's parameters.
        prune_ratio: the ratio in force.
        rounds: all rounds so far.
    """

    seed: int
    total_steps: int
    mean: float
    deviation: float
    prune_ratio: float
    rounds: tuple[Round, ...] = ()


class Controller(ABC):
    """A way to find the prune ratio within a run. Subclasses are frozen dataclasses, one a file, registered in `controllers`."""

    @abstractmethod
    def start(self, seed: int, total_steps: int) -> ControllerState:
        """The state before the first step.

        Args:
            seed: root of this controller's random streams.
            total_steps: optimizer steps of the run, >= 1.
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
            losses_before: of the first part of the examples, with the committed mask, [n].
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
            losses_before: [N], with the committed mask; complete.
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
    def refreshes_importance(self) -> bool:
        """Whether each round's masks are built from the importance as it is then; False: from that of the first round."""
        return True

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


def state_to_dict(state: ControllerState) -> dict[str, object]:
    """The state as dicts, lists and numbers. JSON keeps them exactly: Python writes the shortest decimal that reads back."""
    return {field.name: _encode(getattr(state, field.name)) for field in dataclasses.fields(state)}


def state_from_dict(values: Mapping[str, object]) -> ControllerState:
    """The inverse of `state_to_dict`.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong type; the message names it.
    """
    return _decode(ControllerState, values, "state")  # pyright: ignore[reportReturnType]


def _encode(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(kind: Any, value: object, where: str) -> object:
    """`value` as a `kind`: one of this file's dataclasses, a tuple of a kind, a number, or an optional number."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError("must be a mapping", field=where, value=value)
        kinds = get_type_hints(kind)
        for key in value:
            if key not in kinds:
                raise InputError("unknown key", field=where, value=key, mend=suggest(str(key), kinds))
        for key in kinds:
            if key not in value:
                raise InputError(f"the key {key!r} is missing", field=where)
        return kind(**{key: _decode(kinds[key], value[key], f"{where}.{key}") for key in kinds})
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError("must be a list", field=where, value=value)
        return tuple(_decode(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if value is None and type(None) in get_args(kind):
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise InputError("must be a whole number" if kind is int else "must be a number", field=where, value=value)
    return value if kind is int else float(value)


controllers: Registry[Controller | Search] = Registry("controller")
