"""The record of a run: what `record.json` holds. Reports read this and nothing else (besides the run folder's `.jsonl` files).

`history.jsonl`, a line each, by `kind`:
    step   {kind, system, step, epoch, loss, learning_rate, prune_ratio}      loss: nats per completion token;
                                                            micro_batch: most examples a pass, from where memory did not hold a
                                                            batch on
    epoch  {kind, system, step, epoch, dev_loss, best}      best: whether it is the best so far of those that may be exported;
                                                            dev_loss: null where it never could be, and was not judged;
                                                            dev_score beside it where a metric judges the epochs;
                                                            averaged_steps where the mean over so many steps was judged, and
                                                            not the latest weights (`tuning.average`); kept_epoch, the best so
                                                            far, with `select_tolerance`. At the step
                                                            where a ratio is settled the best epoch of its search comes again,
                                                            pruned at that ratio
    round  {kind, system, ...the fields of RoundRecord}
    settled {kind, system, step, prune_ratio, dev_check}      a controller's answer in force; `dev_check` as lists; by_group where
                                                            groups of layers have ratios of their own
`predictions.jsonl`, a line each test example:
    {id, document, prompt, references: [..], predictions: {system: text}, losses: {system: nats per token}}
    and `group` where the example has one.
Unknown is not zero: a value that could not be had is null, and `warnings` says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from pomona.comparison import Comparison
from pomona.ratios import Answer, RoundRecord, said_ratio
from pomona.runs.record_view import RunFrames, frames, table, ten_lines

FORMAT_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Estimate(_Part):
    """A metric's value, its 95 % bootstrap interval, and how many examples it was computed from."""

    value: float
    low: float
    high: float
    n: int


class AnswersRecord(_Part):
    """What a system's answers look like, whatever is right; a figure that no answer says anything about is null.

    `empty_share` and `unended_share` (as long as an answer may be, without an end) in [0, 1]; `mean_words`; `length_ratio`: words
    over the closest reference's; `repetition`: share of an answer's runs of four words that it has had before; `cut_prompts`: how
    many prompts were too long to be given whole.
    """

    empty_share: float | None
    unended_share: float | None
    mean_words: float | None
    length_ratio: float | None
    repetition: float | None
    cut_prompts: int | None = None


class SystemDescription(_Part):
    """A row of the table: what the system is, and what it cost.

    `train_seconds`: of the main system with the pass that learned its ratio, or all runs that it was picked from; what it merges
    (sources, a target LoRA) is not counted. `unscored`: how many test examples the system has no answer to.

    `adapted`: the last part of the modules' paths -> how many of them are adapted. `trained_parameters`: entries of the factors
    that a gradient moved; null where none did. `sparsity`: share of these that is exactly zero. `stored_parameters`: entries of the
    adapter as a folder stores it, at one rank, of which `padding` are components that are all zero, and of the others `zeros` is
    the share that is exactly zero (what `pomona inspect` shows). `training`: the optimizer's settings, and `runs`, how many whole
    trainings it took. `differences`: in what a trained system differs from `pomona`. `rank_loss`: what a static merge, the system
    itself or what its training began with, lost to its rank: `||full - result|| / ||full||`, full being the method's own result.
    `tuned_over`: the grid from which the dev set chose the system's own `training`; null where there was none.
    """

    label: str
    description: str
    rank: int | None = None
    prune_ratio: float | None = None
    sparsity: float | None = None
    train_seconds: float | None = None
    unscored: int = 0
    answers: AnswersRecord | None = None
    adapted: dict[str, int] | None = None
    trained_parameters: int | None = None
    stored_parameters: int | None = None
    padding: int | None = None
    zeros: float | None = None
    training: dict[str, float | None] | None = None
    differences: list[str] = Field(default_factory=list)
    rank_loss: float | None = None
    tuned_over: dict[str, list[float]] | None = None


class PointRecord(_Part):
    """A system's training at one point of the grid of `evaluation.tune`; a setting that the grid does not vary is null.

    `dev_loss`: nats per token in the kept epoch, `kept_epoch`. `dev_score`: what `select_by` names, on the dev set; null where the
    loss judges. `runs`, `tokens` and `seconds` count all trainings of the system at this point (at several ratios, and the pass
    that learns the ratio), probes too. `error`: why the training failed; then the other values are null.
    """

    learning_rate: float | None
    epochs: int | None
    dev_loss: float | None
    dev_score: float | None
    kept_epoch: int | None
    runs: int
    tokens: int | None
    seconds: float | None
    chosen: bool
    error: str | None = None


class ModuleRecord(_Part):
    """One adapted module after training.

    `sparsity_A`, `sparsity_B`: shares of exact zeros, before components that are all zero were left out of the adapter.
    `importance`: mean score of the entries of both factors that were kept. `merge_weights`: of the merged adapters in their order,
    where these were trained; where components have weights, their mean, and `component_weights` has each.
    `kept_by_source`: share of the rank-one components of each merged adapter, in their order, that were kept, null for one that is
    not trained there; null where the units of pruning are not of sources.
    """

    module: str
    layer: int | None
    projection: str
    sparsity_A: float
    sparsity_B: float
    importance: float
    merge_weights: list[float] | None = None
    component_weights: list[list[float]] | None = None
    kept_by_source: list[float | None] | None = None


class SourceRecord(_Part):
    """A source adapter: where it came from, its fingerprint, and its merge weight, by the recipe's rule if it has one."""

    name: str
    origin: str
    fingerprint: str
    rank: int
    modules: int
    weight: float | list[float] | list[dict[str, Any]]


class RankedSource(_Part):
    """A candidate of the pool, as `pomona.backbone.pool` scores it on the training examples.

    `loss`: nats per completion token of the model with the adapter alone. `agreement`: of the adapter's update with a step down the
    loss, in [-1, 1]. `chosen`: whether it is merged.
    """

    name: str
    loss: float
    agreement: float
    chosen: bool = True


class PoolRecord(_Part):
    """The sources from which `pool` chose, best first; `by`: what they are ordered by.

    `base_loss`: of the bare model on the same training examples, nats per completion token. `seconds`: of the scoring; 0 where
    another cell of the experiment did it.
    """

    by: Literal["loss", "gradient"]
    base_loss: float
    candidates: list[RankedSource]
    seconds: float


class SplitRecord(_Part):
    """How many examples a split has, and the fingerprint of their content."""

    examples: int
    fingerprint: str


class CutRecord(_Part):
    """What was left out of a split's examples: of documents by the task's limit, of prompts because they were too long."""

    documents: int
    characters: int
    prompts: int
    tokens: int


class Timing(_Part):
    """Wall-clock seconds, summed over interrupted parts of a resumed run.

    `reused_seconds`: what training took that another cell of the experiment did, and this one took over; in no other part.
    """

    load_seconds: float = 0.0
    train_seconds: float = 0.0
    probe_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    reused_seconds: float = 0.0
    total_seconds: float = 0.0


class EvaluationRecord(_Part):
    """What `pomona evaluate` found. Every system but the first is compared with the first.

    `data` is the fingerprint of the examples; `cut_documents` how many of them the task's limit shortened; `predictions` holds
    each system's answers as the task read them, in the order of the examples, null where there is none.
    """

    model: str | None
    task: str
    examples: int
    data: str
    cut_documents: int
    warnings: list[str] = Field(default_factory=list)
    metrics: dict[str, dict[str, Estimate]]
    comparisons: list[Comparison]
    answers: dict[str, AnswersRecord]
    unscored: dict[str, int]
    signatures: dict[str, str]
    predictions: dict[str, list[str | None]] = Field(repr=False)

    def __repr__(self) -> str:
        facts = {"warnings": len(self.warnings) or None, "differences": len(self.comparisons) or None}
        first = next((name for scores in self.metrics.values() for name in scores), "")
        return ten_lines(self._title, facts, self.metrics, first, {})

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return table(self._title, self.metrics, {})

    @property
    def _title(self) -> str:
        return f"EvaluationRecord: {self.task}, {self.examples} examples, {self.model or 'given answers'}"


class RunRecord(_Part):
    """Everything that a run was and found.

    The system that the run made is called `pomona` in `systems`, `metrics` and `comparisons`. `search_splits`: of the pass that
    learned the ratio, where it has a seed of its own; empty where not. `tokens`: of each training; one that the grid of
    `evaluation.tune` did not choose is called `system@point`. `tuned`: what was trained -> its points of that grid.
    """

    format_version: int = FORMAT_VERSION
    status: Literal["running", "done", "failed", "interrupted"]
    name: str
    started: str
    recipe: dict[str, object]
    environment: dict[str, object]
    fingerprints: dict[str, str]
    model: str
    task: str
    primary_metric: str
    splits: dict[str, SplitRecord]
    search_splits: dict[str, SplitRecord] = Field(default_factory=dict)
    cut: dict[str, CutRecord] = Field(default_factory=dict)
    sources: list[SourceRecord] = Field(default_factory=list)
    pool: PoolRecord | None = None
    systems: dict[str, SystemDescription] = Field(default_factory=dict)
    metrics: dict[str, dict[str, Estimate]] = Field(default_factory=dict)
    signatures: dict[str, str] = Field(default_factory=dict)
    comparisons: list[Comparison] = Field(default_factory=list)
    prune_ratio: float | None = None
    sparsity: float | None = None
    answer: Answer | None = None
    rounds: list[RoundRecord] = Field(default_factory=list)
    modules: list[ModuleRecord] = Field(default_factory=list)
    timing: Timing = Field(default_factory=Timing)
    tokens: dict[str, int] = Field(default_factory=dict)
    tuned: dict[str, list[PointRecord]] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    error: str | None = None
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path | None:
        """The run folder that it was read from or written to; no part of the record's content."""
        return self._folder

    def stands_in(self, folder: Path) -> Self:
        """This record, which knows its folder."""
        self._folder = folder
        return self

    def to_pandas(self) -> RunFrames:
        """Frames of the systems, the rounds, and the history of the run folder.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return frames(self, self._folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunRecord) and self.__dict__ == other.__dict__

    def __repr__(self) -> str:
        answer = self.answer
        known = answer is not None and answer.low < answer.high and not self.learned_nothing
        facts = {
            "folder": self._folder,
            "sources": ", ".join(one.name for one in self.sources),
            "examples": ", ".join(f"{part.examples} {name}" for name, part in self.splits.items()),
            "prune ratio": None
            if answer is None
            else said_ratio(answer.prune_ratio)
            + (f" [{said_ratio(answer.low)}, {said_ratio(answer.high)}] by {answer.controller}" if known else ""),
            "warnings": len(self.warnings) or None,
            "error": self.error,
        }
        return ten_lines(self._title, facts, self.metrics, self.primary_metric, self._labels)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return table(self._title, self.metrics, self._labels)

    @property
    def _title(self) -> str:
        return f"RunRecord {self.name!r}, {self.status}: {self.task} with {self.model}"

    @property
    def _labels(self) -> dict[str, str]:
        return {name: one.label for name, one in self.systems.items()}

    @property
    def learned_nothing(self) -> bool:
        """Whether no round took place where a controller learns the ratio: then it is the one that the run began with."""
        answer = self.answer
        return answer is not None and answer.low < answer.high and not answer.curve and not self.rounds
