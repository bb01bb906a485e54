"""Rounds of a controller, and the state that holds them, with conversion to JSON.

Each type here, and each controller's own state, is a frozen dataclass. JSON keeps the values exactly: Python writes the shortest
decimal that reads back as the same number.
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
    """One candidate prune ratio.

    Args:
        prune_ratio: the ratio, in [0, 1].
        losses: cost of each micro dev example under the candidate's mask, lower is better, [N]: its mean loss in nats per token,
            unless the run has another reward. None for an example that was not measured.
        reward: mean cost of the reference minus that of the candidate, over the measured examples; positive is better.
        p_value: one-sided, for "the gain over the measured examples is not above zero".
        by_group: its ratio for each group of layers; `prune_ratio` is their mean, weighted by the groups' shares; empty without
            groups.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    prune_ratio: float
    losses: tuple[float | None, ...]
    reward: float
    p_value: float
    by_group: tuple[float, ...] = ()

    @property
    def seen(self) -> int:
        """Number of measured examples."""
        return sum(loss is not None for loss in self.losses)

    @classmethod
    def measured(
        cls, prune_ratio: float, losses_before: Sequence[float], losses: Sequence[float | None], generator: torch.Generator
    ) -> Candidate:
        """A candidate with the reward and p-value of its losses.

        Args:
            prune_ratio: the ratio.
            losses_before: [N], under the reference mask of its round.
            losses: [N], at least one of them not None.
            generator: for the test with many examples.
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
    """The measurements and the decision of one round.

    Args:
        index: from 0.
        step: optimizer steps taken before the round.
        losses_before: cost of each micro dev example under the round's reference mask, [N].
        candidates: the tried candidates, in the order of the proposals.
        prune_ratio_before: ratio in force before the round.
        prune_ratio_after: ratio in force after the round.
        mask_prune_ratio: ratio of the committed mask, or None without a commit.
        mean, deviation: of the posterior of the best ratio after the round; with a policy, the policy's.
        reference: ratios of the reference mask, one for each group of layers, or one for all. It is a mask selected in this round,
            or the mask in force (see `Controller.reference`).
        by_group: ratio in force after the round for each group of layers; empty without groups.
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
        """Ratios of the committed mask, one for each group of layers, or one for all; None without a commit."""
        return None if self.mask_prune_ratio is None else self.by_group or (self.mask_prune_ratio,)

    def record(self, shares: Sequence[float], mask_change: float | None = None, newly_pruned: float | None = None) -> RoundRecord:
        """The round in the form of the history and the record.

        Args:
            shares: each group's share of all entries.
            mask_change: the share of all entries whose mask the commit changed; None without a commit.
            newly_pruned: the share of all entries that the commit newly pruned.
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
    """The part of a controller's state that the training loop reads.

    A controller that learns more than the ratio in force keeps it in its own subclass, which is private to it; the fields are
    numbers, strings, tuples and dataclasses of these, with defaults.

    Args:
        seed: root seed of the random streams of all rounds.
        total_steps: optimizer steps of the whole run.
        shares: each group's share of all entries; one group is all layers.
        ratios: the ratio in force of each group.
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
    """The state of this class from the JSON of its `dataclasses.asdict`.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong type; the message names it.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in ("state", *first["loc"]))
        value = ... if first["type"] == "missing" else first["input"]  # for a missing key, pydantic's input is the whole object
        raise InputError(first["msg"], field=field, value=value, fix="Start the run again from the beginning") from error


def over_all(shares: Sequence[float], values: Sequence[float]) -> float:
    """The mean of the groups' values weighted by their shares; for prune ratios, this is the share of all entries."""
    return math.fsum(share * value for share, value in zip(shares, values, strict=True))


def shares_of(shares: Sequence[float], groups: int) -> tuple[float, ...]:
    """The groups' shares given to `Controller.start`; equal shares if none are given.

    Raises:
        ValueError: the numbers of shares and groups differ.
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
        losses: a row [N] for each proposed ratio, or None, as in `Controller.observe`.
        candidates: number of proposed ratios.

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
    """Raise a PomonaError with `problem` if a value is NaN or infinite."""
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
