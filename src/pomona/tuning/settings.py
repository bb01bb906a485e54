"""What goes into the training loop and what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from torch import Tensor

from pomona.adapters.factors import Adapter, Factors
from pomona.backbone.batches import Encoded
from pomona.components import decoded, encoded
from pomona.control import Controller
from pomona.errors import InputError
from pomona.importance import DeltaSensitivity, ImportanceMetric, Wanda, importance_metrics
from pomona.pruning import Granularity, Schedule, Scope, check_scope
from pomona.ratios import Answer

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
        patience_epochs: stop after so many epochs without a better dev loss, counted from the first one that could be exported;
            in a search for the ratio that is followed by another run, from the first; None for never; ALM: 3.
        max_tokens: longest example, prompt and completion together.
        checkpoint_steps: optimizer steps between checkpoints, >= 1.
        gradient_checkpointing: compute the layers' activations again in the backward pass, so that they need not be kept: less
            memory, about a third more time.
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
    gradient_checkpointing: bool = False

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

    def total_steps(self, examples: int) -> int:
        """Optimizer steps of a whole run on so many examples."""
        batches = math.ceil(examples / self.batch_size)
        return math.ceil(batches / self.accumulation_steps) * self.epochs


Activations = Literal["streamed", "full_pass"]
Reset = Literal["zero", "initial"]
MasksOf = Literal["merged", "adapter"]


@dataclass(frozen=True)
class Pruning:
    """How to prune while tuning (ALM, arXiv 2505.24174); `pomona.pruning` says what each choice means, `controller` how much.

    Args:
        metric: importance of an entry.
        interval_steps: optimizer steps between selections, once the ratio is settled, >= 1; ALM: 1. Above 1 pruned entries grow
            between selections, so the ratio holds at selections and at the end of an epoch only.
        activations: where the norms of activations come from: `streamed` from the forward passes of training, or `full_pass`, the
            whole training set again before each selection.
        forgetting: of the streamed norms, in [0, 1], a step.
        granularity: what is pruned as a whole: an entry (`parameter`), a rank-one component (`rank`), a `module`.
        scope: which of them compete: those of one `tensor`, of one `layer`, or all (`global`); None: `global` for modules, else
            `tensor`.
        masks: `adapter`, each adapter loses its own share of entries, whatever its weight; `merged`, the entries of the merged
            factors compete whosever they are. None: `adapter` with method concat and granularity parameter, else `merged`.
        reset: what a pruned entry becomes: `zero`, or the value that it had when training began (`initial`).
        schedule: of a given ratio: `constant`, `linear` or `cubic` growth up to it, or `once`, where the mask is selected after
            the first step and then held.
        ramp_fraction: share of the run in which a growing schedule reaches the ratio, in (0, 1].
        prunes_ties: whether what ties with the last entry that the ratio prunes is pruned too, as in the published code of GRASP;
            the published behaviours of a controller set it too.
        paper: ALM's published code: one norm a layer from passes of single examples, in place of `activations`; needs metric
            delta_sensitivity.

    Raises:
        InputError: a value is out of its range; a scope that the granularity does not have; published norms for a metric that
            reads what they do not know, or together with others.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "arbitrary_types_allowed": True}

    metric: Annotated[ImportanceMetric, decoded(importance_metrics), encoded(importance_metrics)] = field(default_factory=Wanda)
    interval_steps: int = 1
    activations: Activations = "streamed"
    forgetting: float = 0.95
    granularity: Granularity = "parameter"
    scope: Scope | None = None
    masks: MasksOf | None = None
    reset: Reset = "zero"
    schedule: Schedule = "constant"
    ramp_fraction: float = 0.5
    prunes_ties: bool = False
    paper: bool = False

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise InputError("must be at least 1", field="pruning.interval_steps", value=self.interval_steps)
        if not 0 <= self.forgetting <= 1:
            raise InputError("must be in [0, 1]", field="pruning.forgetting", value=self.forgetting)
        if not 0 < self.ramp_fraction <= 1:
            raise InputError("must be in (0, 1]", field="pruning.ramp_fraction", value=self.ramp_fraction)
        for name, kinds in (("activations", Activations), ("reset", Reset), ("schedule", Schedule), ("granularity", Granularity)):
            if getattr(self, name) not in get_args(kinds):
                problem = f"must be one of {', '.join(get_args(kinds))}"
                raise InputError(problem, field=f"pruning.{name}", value=getattr(self, name))
        check_scope(self.granularity, self.scope)
        if self.masks not in (None, *get_args(MasksOf)):
            raise InputError(f"must be one of {', '.join(get_args(MasksOf))}", field="pruning.masks", value=self.masks)
        if self.masks == "adapter" and self.granularity != "parameter":
            problem = f"granularity {self.granularity!r} ranks what the merge makes, whosever it is"
            raise InputError(problem, field="pruning.masks", value=self.masks, fix="Use merged, or granularity parameter")
        if self.paper and self.activations != "streamed":
            raise InputError("`paper` has norms of its own: leave `activations` out", field="pruning")
        if self.paper and not isinstance(self.metric, DeltaSensitivity):
            raise InputError(
                "the published norms serve the published code's metric alone",
                field="pruning.metric",
                value=type(self.metric).__name__,
                fix="Set pruning.metric to delta_sensitivity, or leave out pruning.paper",
            )

    def following(self, controller: Controller) -> Self:
        """With what the published behaviour of a controller changes, in its own run and in the one that its answer is for."""
        handling = controller.handling
        own_masks = self.masks is None and self.granularity == "parameter" and handling.masks_by_adapter
        masks = "adapter" if own_masks else self.masks
        return replace(self, masks=masks, prunes_ties=self.prunes_ties or handling.prunes_ties)

    def by_adapter(self, *, kept_apart: bool) -> bool:
        """Whether each adapter has masks of its own.

        Args:
            kept_apart: whether every entry of the merged factors is one adapter's own.
        """
        return kept_apart and self.granularity == "parameter" if self.masks is None else self.masks == "adapter"

    @property
    def needs_norms(self) -> bool:
        """Whether anything reads the norms of activations."""
        return self.metric.needs_activations or self.granularity == "module"


@dataclass(frozen=True, eq=False)
class FitData:
    """What the loop may see. `micro_dev` is for the controller, `dev` for the choice of epoch; either may be empty."""

    train: Sequence[Encoded]
    micro_dev: Sequence[Encoded] = ()
    dev: Sequence[Encoded] = ()


class Sparsity(NamedTuple):
    """Shares of a module's factors that are exactly zero, and how many entries these have."""

    A: float
    B: float
    entries_A: int
    entries_B: int

    @classmethod
    def of(cls, pair: Factors) -> Self:
        """Measured."""
        return cls(_zero_share(pair.A), _zero_share(pair.B), pair.A.numel(), pair.B.numel())


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came out; a run folder keeps it beside the adapter.

    Args:
        adapter: the chosen epoch's factors, pruned, scaling 1.
        epoch: the chosen epoch, from 1.
        dev_loss: its dev loss, nats per token; None without dev examples.
        dev_scores: of each dev example in that epoch, higher is better: what the epoch was chosen by.
        sparsity: module -> shares of A and of B that are exactly zero, before components that are all zero were left out.
        merge_weights: module -> each adapter's merge weight, where these were trained.
        answer: the ratio; None where nothing was pruned.
        control: the controller's last state, as JSON has it once a run folder kept it (`Controller.load_state`); None where
            nothing was pruned.
        importance: module -> mean score of its kept entries at the end; empty where nothing was pruned.
        history: every event, in order.
        train_seconds, probe_seconds: wall clock of training (pruning and dev losses included) and of the controller's probes.
        tokens: training tokens seen, padding excluded.
        reused: whether another run trained it; the seconds are that run's.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"arbitrary_types_allowed": True}

    adapter: Adapter
    epoch: int
    dev_loss: float | None
    dev_scores: tuple[float, ...]
    sparsity: Mapping[str, Sparsity]
    merge_weights: Mapping[str, Sequence[float]]
    answer: Answer | None
    control: Any
    importance: Mapping[str, float]
    history: Sequence[Event]
    train_seconds: float
    probe_seconds: float
    tokens: int
    reused: bool = False


def _zero_share(factor: Tensor) -> float:
    return float((factor == 0).double().mean()) if factor.numel() else 0.0
