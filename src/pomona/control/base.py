"""What a controller is: it proposes prune ratios, sees how each changes the micro dev losses, and answers with one ratio.

The registry also holds the searches over whole runs (`search.py`), as a recipe names either in the same place.

A controller never sees a model. It is a frozen dataclass of hyperparameters; what evolves is a `ControllerState` that
goes into a checkpoint as JSON. The loop that drives one:

    state = controller.start(seed, total_steps)
    before the first round: commit the mask of state.prune_ratio
    after each optimizer step, when controller.round_due(state, step):
        candidates = controller.propose(state)
        state = controller.observe(state, step, losses_before, losses_of_each_candidate)
        if state.rounds[-1].mask_prune_ratio is not None: commit the mask of that ratio
    from controller.settle_step(total_steps) on, after that step's round if one is due: the ratio is that of the answer
    answer = controller.choose(state)
    warnings = controller.diagnose(state, mask_changes)
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pomona.control.answer import Answer
from pomona.control.search import Search
from pomona.errors import InputError, suggest
from pomona.registry import Registry


@dataclass(frozen=True)
class Candidate:
    """One prune ratio on trial.

    Args:
        prune_ratio: the ratio, in [0, 1].
        losses: mean loss of each micro dev example under the trial mask, nats per token, [N].
        reward: mean loss before minus mean loss on trial; positive is better.
        p_value: one-sided, for "the gain over the N examples is not above zero".
    """

    prune_ratio: float
    losses: tuple[float, ...]
    reward: float
    p_value: float


@dataclass(frozen=True)
class Round:
    """What one round saw and decided.

    Args:
        index: from 0.
        step: optimizer steps taken before the round.
        losses_before: each micro dev example's loss with the committed mask, nats per token, [N].
        candidates: in the order in which they were proposed.
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

    @abstractmethod
    def observe(
        self, state: ControllerState, step: int, losses_before: Sequence[float], losses: Sequence[Sequence[float]]
    ) -> ControllerState:
        """Take in a round's losses; the new state's last round holds the decision.

        Args:
            state: as it was when `propose` was called.
            step: optimizer steps taken so far.
            losses_before: [N], with the committed mask.
            losses: [G, N], a row for each candidate, in the order of `propose`.
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

    def diagnose(self, state: ControllerState, mask_changes: Sequence[float]) -> list[str]:
        """What went wrong with the search, one sentence each with what to change; none by default.

        Args:
            state: after the last round.
            mask_changes: for each mask committed by a round, in order, the share of all factor entries that changed sides.
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
