"""Rounds: what a controller has seen of each, and the state that holds them; all of it as JSON.

Each type here is a frozen dataclass, and so is the state of a controller that has one of its own. JSON keeps them exactly: Python
writes the shortest decimal that reads back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from pomona.control.within_rounds import gain_p_value
from pomona.errors import InputError, PomonaError
from pomona.ratios import CandidateRecord, RoundRecord

CONFIG = ConfigDict(extra="forbid")


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

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

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
        mean, deviation: of where the controller believes the loss to be lowest, after the round; with a policy, the policy's.
        reference: what the reference mask is made of, with which the candidates are compared: a ratio for each group of layers, one
            alone for all. A mask selected in this round, or the one that was in force: `Controller.reference` says which.
        by_group: ratio in force after it for each group of layers; empty where one is for all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

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

    def record(self, shares: Sequence[float], mask_change: float | None = None, newly_pruned: float | None = None) -> RoundRecord:
        """What the history and the record hold of it.

        Args:
            shares: the share of all entries of each group of layers that has a ratio of its own.
            mask_change: the share of all entries that its commit moved to the other side; None where it committed nothing.
            newly_pruned: the share of all entries that its commit newly pruned.
        """
        return RoundRecord(
            index=self.index,
            step=self.step,
            loss_before=sum(self.losses_before) / len(self.losses_before),
            candidates=[
                CandidateRecord(one.prune_ratio, one.reward, one.p_value, one.seen, list(one.by_group) or None)
                for one in self.candidates
            ],
            prune_ratio_before=self.prune_ratio_before,
            prune_ratio_after=self.prune_ratio_after,
            committed=self.mask_prune_ratio is not None,
            mean=self.mean,
            deviation=self.deviation,
            mask_change=mask_change,
            newly_pruned=newly_pruned,
            reference=over_all(shares, self.reference),
            by_group=list(self.by_group) or None,
        )


@dataclass(frozen=True)
class ControllerState:
    """What evolves in a run, as far as the training loop reads it.

    A controller that learns more than the ratio in force keeps that in a subclass of its own, which nobody else reads; its fields
    are numbers, strings, tuples and dataclasses of these, with defaults.

    Args:
        seed: root of every round's own random stream.
        total_steps: optimizer steps of the whole run.
        shares: the share of all entries of each group of layers that has a ratio of its own; one group alone is all layers.
        ratios: the ratio in force of each of them.
        rounds: all rounds so far.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    seed: int
    total_steps: int
    shares: tuple[float, ...]
    ratios: tuple[float, ...]
    rounds: tuple[Round, ...] = ()

    @property
    def prune_ratio(self) -> float:
        """The share of all entries that the ratios in force prune."""
        return over_all(self.shares, self.ratios)


S = TypeVar("S", bound=ControllerState)


def state_from_dict(kind: type[S], values: object) -> S:
    """The state of this class whose `dataclasses.asdict` JSON held.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong type; the message names it.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in ("state", *first["loc"]))
        value = ... if first["type"] == "missing" else first["input"]  # of a missing key, all that stands beside it
        raise InputError(first["msg"], field=field, value=value, fix="Start the run anew") from error


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


def check_losses(
    state: ControllerState,
    step: int,
    losses_before: Sequence[float],
    losses: Sequence[Sequence[float | None] | None],
    candidates: int,
) -> None:
    """Refuse a round's losses that do not fit its candidates, or are not finite.

    Args:
        state: before the round.
        step: optimizer steps taken so far.
        losses_before: [N], under the reference mask.
        losses: a row [N] for each proposed ratio, or None, as `Controller.observe` has them.
        candidates: how many ratios were proposed.

    Raises:
        PomonaError: a loss is not finite.
        ValueError: the losses do not fit the candidates, fewer than two were tried, or the number of micro dev examples has
            changed.
    """
    n, tried = len(losses_before), [row for row in losses if row is not None]
    if n == 0 or len(losses) != candidates or any(len(row) != n for row in tried):
        raise ValueError(f"expected {candidates} rows of {n} losses (at least 1), got rows of {[len(row) for row in tried]}")
    if len(tried) < 2 or any(all(loss is None for loss in row) for row in tried):
        raise ValueError(f"at least 2 candidates must be tried, each on an example, got {len(tried)}")
    if state.rounds and len(state.rounds[0].losses_before) != n:
        raise ValueError(f"the first round had {len(state.rounds[0].losses_before)} micro dev examples, this one has {n}")
    seen = [loss for row in (losses_before, *tried) for loss in row if loss is not None]
    check_finite(seen, f"a micro dev loss is not finite at step {step}")


def check_finite(values: Sequence[float], problem: str) -> None:
    """Raise a PomonaError that says `problem` where a value is NaN or infinite."""
    if not all(map(math.isfinite, values)):
        raise PomonaError(
            f"{problem}: the training has diverged, or an example does not fit in memory",
            fix="Lower the learning rate of the training, or use a wider number type; where memory does not hold an example, "
            "lower tuning.max_tokens",
        )


def check_settings(settings: object, *rules: tuple[str, bool, str]) -> None:
    """Refuse the first setting whose rule does not hold.

    Args:
        settings: a controller or a search.
        rules: a setting's name, whether its rule holds, and the rule in words, such as "must be at least 1".

    Raises:
        InputError: a rule does not hold.
    """
    for field, holds, problem in rules:
        if not holds:
            raise InputError(problem, field=field, value=getattr(settings, field))
