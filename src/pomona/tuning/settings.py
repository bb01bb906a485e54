"""What goes into the training loop and what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pomona.adapters.factors import Adapter
from pomona.backbone.batches import Encoded
from pomona.control import Answer, ControllerState
from pomona.errors import InputError
from pomona.importance import ImportanceMetric, Wanda

Event = dict[str, object]
"""A line of `history.jsonl`; its fields stand in `pomona.runs.record`."""


@dataclass(frozen=True)
class Tuning:
    """How to fine-tune. AdamW on the factors in fp32; the rate is constant within an epoch.

    Args:
        epochs: passes over the training examples, >= 1.
        learning_rate: of the first epoch, > 0.
        learning_rate_decay: factor from one epoch to the next, in (0, 1]; ALM: 0.85.
        weight_decay: AdamW's, >= 0; ALM: 0.
        batch_size: examples a forward pass, >= 1.
        accumulation_steps: forward passes an optimizer step, >= 1.
        dropout: on the adapters' inputs, in [0, 1); ALM: 0.05.
        gradient_clip: largest norm of the whole gradient; None for no limit.
        patience_epochs: stop after so many epochs without a better dev loss; None for never; ALM: 3.
        max_tokens: longest example, prompt and completion together.
        checkpoint_steps: optimizer steps between checkpoints, >= 1.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    epochs: int = 4
    learning_rate: float = 2e-4
    learning_rate_decay: float = 0.85
    weight_decay: float = 0.0
    batch_size: int = 8
    accumulation_steps: int = 1
    dropout: float = 0.05
    gradient_clip: float | None = 1.0
    patience_epochs: int | None = None
    max_tokens: int = 512
    checkpoint_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation_steps", "max_tokens", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise InputError("must be at least 1", field=f"tuning.{name}", value=getattr(self, name))
        for name in ("learning_rate", "gradient_clip", "patience_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError("must be above 0", field=f"tuning.{name}", value=value)
        if not 0 < self.learning_rate_decay <= 1:
            raise InputError("must be in (0, 1]", field="tuning.learning_rate_decay", value=self.learning_rate_decay)
        if not 0 <= self.dropout < 1:
            raise InputError("must be in [0, 1)", field="tuning.dropout", value=self.dropout)
        if not 0 <= self.weight_decay < math.inf:
            raise InputError("must be at least 0", field="tuning.weight_decay", value=self.weight_decay)


@dataclass(frozen=True)
class Pruning:
    """How to prune while tuning.

    Args:
        metric: importance of an entry.
        interval_steps: optimizer steps between selections, once the ratio is settled, >= 1; ALM: 1.
        forgetting: of the streamed input norms, in [0, 1], a step.
    """

    metric: ImportanceMetric = field(default_factory=Wanda)
    interval_steps: int = 1
    forgetting: float = 0.95

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise InputError("must be at least 1", field="pruning.interval_steps", value=self.interval_steps)
        if not 0 <= self.forgetting <= 1:
            raise InputError("must be in [0, 1]", field="pruning.forgetting", value=self.forgetting)


@dataclass(frozen=True, eq=False)
class FitData:
    """What the loop may see. `micro_dev` is for the controller, `dev` for the choice of epoch; either may be empty."""

    train: Sequence[Encoded]
    micro_dev: Sequence[Encoded] = ()
    dev: Sequence[Encoded] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came out.

    Args:
        adapter: the chosen epoch's factors, pruned, scaling 1.
        epoch: the chosen epoch, from 1.
        dev_loss: its dev loss, nats per token; None without dev examples.
        answer: the ratio; None where nothing was pruned.
        control: the controller's last state; None where nothing was pruned.
        importance: module -> mean score of its kept entries at the end; empty where nothing was pruned.
        history: every event, in order.
        train_seconds, probe_seconds: wall clock of training (pruning and dev losses included) and of the controller's probes.
        tokens: training tokens seen, padding excluded.
    """

    adapter: Adapter
    epoch: int
    dev_loss: float | None
    answer: Answer | None
    control: ControllerState | None
    importance: Mapping[str, float]
    history: Sequence[Event]
    train_seconds: float
    probe_seconds: float
    tokens: int
