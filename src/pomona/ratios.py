"""The prune ratio as a run tells it: the rounds of a search for it, and the answer.

The history, the record and the report hold these types as they are. What a controller has seen beside it is its own
(`pomona.control.rounds`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

_CONFIG = ConfigDict(extra="forbid")


def said_ratio(ratio: float, digits: int = 0) -> str:
    """A share of 1 as every text has it, in percent, halves up: `50%` for 0.495.

    Args:
        ratio: the share.
        digits: decimals of the percentage.
    """
    scale = 10**digits
    return f"{math.floor(100 * ratio * scale + 0.5 + 1e-9) / scale:,.{digits}f}%"


@dataclass(frozen=True)
class CurvePoint:
    """What a ratio gains over the answer, with its 95 % interval.

    It is the expected reward, from all rounds: in nats per token, or in the unit of what the recipe's `reward` names. Where whole
    runs were compared it is their mean dev score's difference to the best run's: in nats per token, or in points of the metric that
    `select_by` names.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    prune_ratio: float
    reward: float
    low: float
    high: float


@dataclass(frozen=True)
class DevCheck:
    """A ratio as the curve sees it and as the dev set does: its cost relative to the answer's, and its mean dev loss."""

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    prune_ratio: float
    cost: float
    dev_loss: float


@dataclass(frozen=True)
class GroupRatio:
    """The ratio of a group of neighbouring layers, and its 95 % interval, equal to it where it was given.

    `first_layer`, `last_layer`: the numbers of its layers, which the record has.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    first_layer: int | None = field(default=None, kw_only=True)
    last_layer: int | None = field(default=None, kw_only=True)
    prune_ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Answer:
    """The controller's answer: the prune ratio p*, its 95 % interval, and whether the ratios are indistinguishable (`flat`).

    `low` and `high` equal p* where it was given, not learned. Where a controller had no round (`rounds` of the record is empty),
    nothing was learned: p* is the ratio that the run began with, and they are the ends of the allowed range.
    `controller`: its name, which the record has. `curve`: empty where there is none. `dev_check`: a few ratios on the dev set when
    a search ended; empty where none did. `by_group`: the groups of layers, where each has a ratio of its own; `prune_ratio` is
    then their mean by entries, and the curve that of one ratio for all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    controller: str = field(default="", kw_only=True)
    prune_ratio: float
    low: float
    high: float
    flat: bool
    curve: tuple[CurvePoint, ...] = ()
    dev_check: tuple[DevCheck, ...] = ()
    by_group: tuple[GroupRatio, ...] = ()

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of each group of layers; one alone for all layers."""
        return tuple(one.prune_ratio for one in self.by_group) or (self.prune_ratio,)


@dataclass(frozen=True)
class CandidateRecord:
    """A candidate ratio and its reward: mean micro dev cost before minus on trial, over the examples that it was tried on.

    Before is what the round's `loss_before` is of.

    `by_group`: the ratio of each group of layers; null where one is for all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    prune_ratio: float
    reward: float
    p_value: float
    examples: int | None = None
    by_group: list[float] | None = None


@dataclass(frozen=True)
class RoundRecord:
    """One round of the controller.

    `loss_before`: mean micro dev cost of what the candidates are compared with: under a mask selected in this round at the ratio
    `reference`; in a controller's published behaviour under the mask that was in force, selected in an earlier round.
    `mean`, `deviation`: of the policy; of a controller without one, of where the loss is believed to be lowest.
    `mask_change`, `newly_pruned`: shares of all factor entries that changed sides at the commit, and that it pruned.
    `by_group`: the ratio in force after it of each group of layers; null where one is for all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    index: int
    step: int
    loss_before: float
    candidates: list[CandidateRecord]
    prune_ratio_before: float
    prune_ratio_after: float
    committed: bool
    mean: float
    deviation: float
    mask_change: float | None = None
    newly_pruned: float | None = None
    reference: float | None = None
    by_group: list[float] | None = None

    def to_line(self) -> dict[str, object]:
        """The fields as a line of the history has them: without `by_group` where one ratio is for all layers."""
        return dataclasses.asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if k != "by_group" or v is not None})

    @classmethod
    def from_line(cls, line: Mapping[str, object]) -> RoundRecord:
        """The round of a line of the history, whose `kind` and `system` say where it belongs.

        Raises:
            ValidationError: it is not such a line.
        """
        return TypeAdapter(cls).validate_python({key: value for key, value in line.items() if key not in ("kind", "system")})
