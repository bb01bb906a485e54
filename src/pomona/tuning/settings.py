"""Inputs and results of the training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from torch import Tensor

from pomona.adapters.factors import Adapter, Factors
from pomona.backbone.batches import Encoded
from pomona.components import ComponentSchema, decoded, encoded
from pomona.control import Controller
from pomona.errors import InputError
from pomona.importance import DeltaSensitivity, ImportanceMetric, Wanda, importance_metrics
from pomona.pruning import Granularity, Schedule, Scope, SourceGranularity, check_scope
from pomona.ratios import Answer

Event = dict[str, object]
"""A line of `history.jsonl`; `pomona.runs.record` lists its fields."""

Averaging = Literal["none", "ema", "uniform"]


@dataclass(frozen=True)
class Tuning:
    """The settings of fine-tuning: AdamW on the factors in fp32, with a constant learning rate within an epoch.

    Args:
        epochs: passes over the training examples, >= 1.
        learning_rate: learning rate of the first epoch, > 0.
        learning_rate_decay: factor from one epoch to the next, in (0, 1]; ALM: 0.85.
        weight_decay: AdamW's, >= 0; ALM: 0.
        batch_size: examples per forward pass, >= 1.
        accumulation_steps: forward passes per optimizer step, >= 1.
        dropout: on the adapters' inputs, in [0, 1); ALM: 0.05.
        gradient_clip: largest norm of the whole gradient; None for no limit.
        patience_epochs: stop after this number of epochs without a better dev loss, counted from the first exportable epoch, or
            from the first epoch of a search that is followed by another run; None: never stop; ALM: 3.
        max_tokens: longest example, prompt and completion together. A longer prompt loses the end of its document, or its beginning
            where the task has no document.
        checkpoint_steps: optimizer steps between checkpoints, >= 1.
        gradient_checkpointing: recompute the layers' activations in the backward pass instead of storing them: less memory, about
            a third more time.
        average: weights that are judged at the end of an epoch and exported: `none`, those after the last step; `ema`, an
            exponential moving average over the steps; `uniform`, the mean over the steps (see `tuning.average`).
        average_decay: decay of `ema` per step, in (0, 1): it spans about 1 / (1 - decay) steps.
        average_from: share of the run's steps before the average begins, in [0, 1); None: 0 for `ema`, 0.5 for `uniform`. With
            pruning it begins when the exported ratio is in force, if this is later.
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
    average: Averaging = "none"
    average_decay: float = 0.9
    average_from: float | None = None

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
        if self.average not in get_args(Averaging):
            raise InputError(f"must be one of {', '.join(get_args(Averaging))}", field="tuning.average", value=self.average)
        if not 0 < self.average_decay < 1:
            raise InputError("must be in (0, 1)", field="tuning.average_decay", value=self.average_decay)
        if self.average_from is not None and not 0 <= self.average_from < 1:
            raise InputError("must be in [0, 1)", field="tuning.average_from", value=self.average_from)

    def total_steps(self, examples: int) -> int:
        """Optimizer steps of a whole run on this number of examples."""
        batches = math.ceil(examples / self.batch_size)
        return math.ceil(batches / self.accumulation_steps) * self.epochs

    def steps_before_average(self, total_steps: int) -> int:
        """Optimizer steps before the first averaged one, of a run of `total_steps`: fewer than these."""
        share = self.average_from if self.average_from is not None else 0.5 * (self.average == "uniform")
        return math.floor(round(share * total_steps, 9))

    def shaping(self) -> dict[str, object]:
        """The settings that shape a result, in JSON's types, for fingerprints: without those of an average that is not made."""
        settings = asdict(self)
        return {name: value for name, value in settings.items() if self.average != "none" or not name.startswith("average")}


Activations = Literal["streamed", "full_pass"]
Reset = Literal["zero", "initial"]
MasksOf = Literal["merged", "adapter"]
Feedback = Literal["search", "always", "never"]
GRANULARITIES = Literal[Granularity, SourceGranularity]


@dataclass(frozen=True)
class Pruning:
    """The settings of pruning while tuning (ALM, arXiv 2505.24174); see `pomona.pruning`. The `controller` sets the ratio.

    Args:
        metric: importance of an entry.
        interval_steps: optimizer steps between selections, once the ratio is settled, >= 1; ALM: 1. Above 1, pruned entries grow
            between selections, so the ratio is exact only at selections and at the end of an epoch.
        activations: source of the activation norms: `streamed`, the forward passes of training, or `full_pass`, another pass over
            the whole training set before each selection.
        forgetting: decay factor of the streamed norms per step, in [0, 1].
        granularity: the unit of pruning: an entry (`parameter`), a rank-one component (`rank`) or a `module`; or, in a merge that
            keeps adapters apart, one adapter's part in a layer (`source_layer`) or one of its rank-one components (`source_rank`).
        scope: the units that are ranked together: those of one `tensor`, of one `layer`, or all (`global`); None: `tensor` for
            `parameter` and `rank`, else `global`.
        masks: `adapter`: each adapter loses the same share of its entries, whatever its weight; `merged`: the entries of the merged
            factors are ranked together. With `source_rank` and `source_layer` the same of their units. None: `adapter` with method
            concat and granularity parameter, and with `source_rank`; else `merged`.
        reset: the value of a pruned entry: `zero`, or its value at the start of training (`initial`).
        schedule: schedule of a given ratio: `constant`, `linear` or `cubic` growth up to the ratio, or `once`: the mask is
            selected after the first step and then held.
        ramp_fraction: share of the run after which a growing schedule reaches the ratio, in (0, 1].
        feedback: when the gradients of the pruned model train the pruned entries too, in a stash from which a later mask revives
            them (dynamic pruning with feedback, arXiv 2006.07253): in the `search` for the ratio; `always`, also under a given or
            settled ratio, where a pruned entry otherwise starts again at its reset value; or `never`.
        prunes_ties: whether entries with the same score as the last pruned entry are also pruned, as in the published code of
            GRASP; the published behaviours of a controller set it too.
        paper: ALM's published code: one norm for each layer, from passes of single examples, instead of `activations`; requires
            metric delta_sensitivity.

    Raises:
        InputError: a value is out of its range; the granularity does not have the scope; published norms with a metric that needs
            other statistics, or with another source of norms.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "arbitrary_types_allowed": True}

    metric: Annotated[
        ImportanceMetric, decoded(importance_metrics), encoded(importance_metrics), ComponentSchema(importance_metrics)
    ] = field(default_factory=Wanda)
    interval_steps: int = 1
    activations: Activations = "streamed"
    forgetting: float = 0.95
    granularity: GRANULARITIES = "parameter"
    scope: Scope | None = None
    masks: MasksOf | None = None
    reset: Reset = "zero"
    schedule: Schedule = "constant"
    ramp_fraction: float = 0.5
    feedback: Feedback = "search"
    prunes_ties: bool = False
    paper: bool = False

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise InputError("must be at least 1", field="pruning.interval_steps", value=self.interval_steps)
        if not 0 <= self.forgetting <= 1:
            raise InputError("must be in [0, 1]", field="pruning.forgetting", value=self.forgetting)
        if not 0 < self.ramp_fraction <= 1:
            raise InputError("must be in (0, 1]", field="pruning.ramp_fraction", value=self.ramp_fraction)
        for name, kinds in (
            ("activations", Activations),
            ("reset", Reset),
            ("schedule", Schedule),
            ("granularity", GRANULARITIES),
            ("feedback", Feedback),
        ):
            if getattr(self, name) not in get_args(kinds):
                problem = f"must be one of {', '.join(get_args(kinds))}"
                raise InputError(problem, field=f"pruning.{name}", value=getattr(self, name))
        check_scope(self.granularity, self.scope)
        if self.masks not in (None, *get_args(MasksOf)):
            raise InputError(f"must be one of {', '.join(get_args(MasksOf))}", field="pruning.masks", value=self.masks)
        if self.masks == "adapter" and self.granularity in ("rank", "module"):
            problem = f"granularity {self.granularity!r} ranks parts of the merged factors, not of each adapter"
            raise InputError(problem, field="pruning.masks", value=self.masks, fix="Use merged, or granularity parameter")
        if self.feedback == "always" and self.schedule == "once":
            raise InputError(
                "with schedule `once` the mask never changes, so no pruned entry is revived",
                field="pruning.feedback",
                value=self.feedback,
                fix="Use search or never, or another schedule",
            )
        if self.paper and self.activations != "streamed":
            raise InputError("`paper` uses its own norms: leave out `activations`", field="pruning")
        if self.paper and not isinstance(self.metric, DeltaSensitivity):
            raise InputError(
                "the published norms are only for the published code's metric",
                field="pruning.metric",
                value=type(self.metric).__name__,
                fix="Set pruning.metric to delta_sensitivity, or leave out pruning.paper",
            )

    def following(self, controller: Controller) -> Self:
        """These settings with the changes of a controller's published behaviour, for its own run and the run with its answer."""
        handling = controller.handling
        own_masks = self.masks is None and self.granularity == "parameter" and handling.masks_by_adapter
        masks = "adapter" if own_masks else self.masks
        return replace(self, masks=masks, prunes_ties=self.prunes_ties or handling.prunes_ties)

    def by_adapter(self, *, kept_apart: bool) -> bool:
        """Whether each adapter has its own masks of entries.

        Args:
            kept_apart: whether every entry of the merged factors belongs to one adapter.
        """
        if self.of_sources:
            return False
        return kept_apart and self.granularity == "parameter" if self.masks is None else self.masks == "adapter"

    @property
    def of_sources(self) -> bool:
        """Whether the units belong to one merged adapter each, which only a merge that keeps adapters apart has."""
        return self.granularity in ("source_layer", "source_rank")

    @property
    def sources_compete(self) -> bool:
        """Whether the units of all adapters compete with each other; read only if `of_sources`."""
        return self.granularity == "source_layer" if self.masks is None else self.masks == "merged"

    @property
    def needs_norms(self) -> bool:
        """Whether the norms of activations are needed."""
        return self.metric.needs_activations or self.granularity == "module"


@dataclass(frozen=True, eq=False)
class FitData:
    """The data of the loop. `micro_dev` is for the controller, `dev` for the choice of epoch; either may be empty."""

    train: Sequence[Encoded]
    micro_dev: Sequence[Encoded] = ()
    dev: Sequence[Encoded] = ()


class Sparsity(NamedTuple):
    """Shares of exact zeros in a module's factors, and the numbers of entries of the factors."""

    A: float
    B: float
    entries_A: int
    entries_B: int

    @classmethod
    def of(cls, pair: Factors) -> Self:
        """The measured sparsity of a pair of factors."""
        return cls(_zero_share(pair.A), _zero_share(pair.B), pair.A.numel(), pair.B.numel())


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of `fit`; a run folder keeps it with the adapter.

    Args:
        adapter: the chosen epoch's factors, pruned, scaling 1.
        epoch: the chosen epoch, from 1.
        dev_loss: its dev loss, nats per token; None without dev examples.
        dev_scores: score of each dev example in that epoch, higher is better; the mean decided the choice of the epoch.
        sparsity: module -> shares of A and of B that are exactly zero, before components that are all zero were removed; of the
            whole update, if no factor was trained.
        merge_weights: module -> each adapter's merge weight, if these were trained; of components their mean.
        answer: the ratio; None without pruning.
        control: the controller's last state, in JSON's types if read from a run folder (`Controller.load_state`); None without
            pruning.
        importance: module -> mean score of its kept entries at the end; empty without pruning.
        history: every event, in order.
        train_seconds, probe_seconds: wall clock of training (pruning and dev losses included) and of the controller's probes.
        tokens: training tokens seen, padding excluded.
        reused: whether another run trained it; the seconds are then from that run.
        component_weights: module -> the merge weights of each adapter's components, if these were trained.
        coefficients: number of trained coefficients, if no factor was trained; else 0.
        kept_by_source: module -> share of each adapter's rank-one components that were kept, in the order of the adapters; None for
            one that is not trained there. Empty unless the granularity is of sources and pruned entries are zero.
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
    component_weights: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    coefficients: int = 0
    kept_by_source: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


def _zero_share(factor: Tensor) -> float:
    return float((factor == 0).double().mean()) if factor.numel() else 0.0
