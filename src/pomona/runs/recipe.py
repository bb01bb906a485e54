"""The recipe: everything that shapes a run, as typed YAML."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from pomona.backbone.decoding import Decoding
from pomona.backbone.device import DTYPES
from pomona.backbone.load import EMBEDDED
from pomona.backbone.quantised import Quantization
from pomona.backbone.speed import Switch
from pomona.backbone.trainable import trainable_merges
from pomona.control import Bayes, Controller, Fixed
from pomona.data.corpora import Documents
from pomona.data.splits import SplitSizes
from pomona.data.tasks import Summarization
from pomona.errors import InputError
from pomona.evaluation.baselines import find_baseline
from pomona.evaluation.scores import LOSS, make_metrics
from pomona.importance import DeltaSensitivity
from pomona.merging.weights import check_weight
from pomona.metrics import Metric
from pomona.patterns import check_expression
from pomona.runs.mirror import mirrored
from pomona.runs.pool import Pool
from pomona.runs.read_yaml import read_yaml
from pomona.runs.recipe_fields import (
    ControllerField,
    DataSource,
    ImportanceField,
    PlainName,
    RewardField,
    RunName,
    TaskField,
    TrackersField,
    WeightField,
    check_judge,
)
from pomona.runs.recipe_merge import Merge
from pomona.runs.section import Section
from pomona.runs.tune import Tune
from pomona.tuning.settings import Pruning, Tuning


class Data(Section):
    """Where examples come from: files, data sets of the hub, or the docstrings of an installed package.

    Paths are relative to the working folder. Kinds of files: `.jsonl`, `.json` (SQuAD's, too), `.csv`, `.tsv`, `.parquet`; a data
    set of the hub is `hub:owner/name`, `hub:owner/name:config@split`, for which local files may stand in (`POMONA_MIRROR`).

    Args:
        train: a source, or a list of sources that make one pool; the only pool where `dev` and `test` are not given.
        dev, test: sources of their own, or lists.
        columns: the task's field -> the data's column, a dotted path where columns are nested, and `sentences[]` for a list of
            texts to be joined; `group` is the field of a key
            whose rows stay in one split and by which intervals are clustered.
        incomplete_rows: `refuse` a row with a field that the task cannot use, or `skip` it, with a warning that counts them.
        near_duplicates: `apart` keeps documents that are nearly the same out of two splits; `allow` does not look, for inputs
            that are nearly the same by nature, such as records of a few fields.
        docstrings: an installed package, or `stdlib`, in place of files: each docstring's first line is the summary.
        documents: of docstrings: `text`, the rest of the docstring; `code`, the function without the docstring.
        exclude_docstrings: packages whose docstrings are taken out of it.
    """

    train: DataSource | None = None
    dev: DataSource | None = None
    test: DataSource | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    incomplete_rows: Literal["refuse", "skip"] = "refuse"
    near_duplicates: Literal["apart", "allow"] = "apart"
    docstrings: str | None = None
    documents: Documents = "text"
    exclude_docstrings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _mirrored(cls, given: object) -> object:
        return mirrored(given) if isinstance(given, dict) else given

    @staticmethod
    def files(source: str | tuple[str, ...] | None) -> tuple[str, ...]:
        """The sources of one pool: of `train`, `dev` or `test`."""
        return () if source is None else (source,) if isinstance(source, str) else source

    @property
    def origin(self) -> str:
        """Where the training examples come from, in words."""
        if not self.docstrings:
            return " and ".join(self.files(self.train))
        return f"{'functions' if self.documents == 'code' else 'docstrings'} of {self.docstrings}"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        for split in ("train", "dev", "test"):
            twice = [source for source, count in Counter(self.files(getattr(self, split))).items() if count > 1]
            if twice:
                raise ValueError(f"`{split}` names {twice[0]} twice")
        if (self.train is None) == (self.docstrings is None):
            raise ValueError("give either `train` (a file) or `docstrings` (an installed package)")
        if self.docstrings is not None and (self.dev or self.test):
            raise ValueError("`docstrings` is one pool: it takes no `dev` or `test` file")
        if self.docstrings is None and self.documents != "text":
            raise ValueError("`documents` says what `docstrings` gives, so it needs `docstrings`")
        if self.docstrings is not None and self.columns:
            raise ValueError("`docstrings` has no columns to map")
        return self


class Lora(Section):
    """The shape of a LoRA that is trained from scratch: a source that a recipe trains, and the target LoRA.

    Where not given: a source has rank 8 on `q_proj` and `v_proj`; the target LoRA that is merged (`merge.target`) has rank
    8 on the modules of the sources; the target LoRA that the run is compared with has the modules that the run trains, and the rank
    that comes nearest in trained parameters (`pomona.runs.shape`).

    Args:
        rank: R of every module.
        alpha: the scaling is alpha / rank; alpha / 8 where no rank is given, whatever rank follows from that.
        target_modules: as PEFT has it: a list of last parts of the modules' paths, or one text: `all-linear`, every linear module
            but the output head, or a regular expression for whole paths.
    """

    rank: int | None = Field(default=None, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    target_modules: tuple[str, ...] | str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        problem = check_expression(self.target_modules) if isinstance(self.target_modules, str) else None
        if problem is not None:
            raise ValueError(f"target_modules {problem}")
        return self

    @property
    def own_rank(self) -> int:
        """The rank of a LoRA that follows nothing."""
        return 8 if self.rank is None else self.rank

    @property
    def own_modules(self) -> tuple[str, ...] | str:
        """The target modules of a LoRA that follows nothing."""
        return ("q_proj", "v_proj") if self.target_modules is None else self.target_modules


class Source(Section):
    """A source adapter: a PEFT folder, or data to train one on (kept in the cache).

    Args:
        name: what the record calls it.
        adapter: a PEFT folder, or `hub:owner/name`, `hub:owner/name/subfolder@revision`.
        data: to train one.
        task: of the source's data; the target's by default.
        examples: how many to train it on, drawn by seed; None takes all.
        lora: its shape; the recipe's by default.
        tuning: how to train it.
        weight: its merge weight: a number, a list of numbers over the depth of the model, or a list of `{filter, value}` entries,
            whose first with `filter` in a module's path counts and which may end with a `{value}` for the rest.
    """

    name: PlainName
    adapter: Path | None = None
    data: Data | None = None
    task: TaskField | None = None
    examples: int | None = Field(default=None, ge=1)
    lora: Lora | None = None
    tuning: Tuning = Tuning(epochs=1, learning_rate=5e-4)
    weight: WeightField = 1.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.adapter is None) == (self.data is None):
            raise ValueError("give either `adapter` (a folder) or `data` (to train one on)")
        if self.adapter is not None and self.lora is not None:
            raise ValueError("an `adapter` has its shape: `lora` shapes one that is trained on `data`")
        return self


class FirstPass(Section):
    """Where the first of two passes differs from the second: the search for the ratio (`controller.mode: two_pass`).

    Args:
        metric: importance of an entry; that of `pruning` where None.
        epochs: passes over the training examples; as in `tuning` where None.
        accumulation_steps: forward passes an optimizer step; as in `tuning` where None.
        patience_epochs: the search ends after so many epochs without a better dev loss; None for never, whatever `tuning` says.
        seed: of the whole search: its training, micro dev and dev examples, the sources and the target LoRA that are trained for
            it, and its draws; the run's where None. So runs of several seeds have one ratio, which is learned once. The test
            examples are the run's, and are kept out of it.
    """

    metric: ImportanceField = None
    epochs: int | None = Field(default=None, ge=1)
    accumulation_steps: int | None = Field(default=None, ge=1)
    patience_epochs: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)

    def tuning(self, final: Tuning) -> Tuning:
        """How the search fine-tunes, where the second pass does so."""
        given = {"epochs": self.epochs, "accumulation_steps": self.accumulation_steps}
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(final, **given, patience_epochs=self.patience_epochs)

    def pruning(self, final: Pruning) -> Pruning:
        """How the search prunes, where the second pass does so; published norms are for the published metric alone."""
        if self.metric is None:
            return final
        return dataclasses.replace(final, metric=self.metric, paper=final.paper and isinstance(self.metric, DeltaSensitivity))


class Evaluation(Section):
    """What is measured on the test set.

    Args:
        baselines: systems to compare with: registered ones, or names of merge methods.
        metrics: the task's own where None; each a name, or a name and parameters; the first is the one that headlines use.
        batch_size: examples a batch.
        draws: bootstrap draws.
        decoding: how answers are decoded; greedily by default.
        tune: a grid over which every trained system is tuned alike; None: all are trained as `tuning` says.
    """

    baselines: tuple[str, ...] = ("zero_shot", "target_lora", "concat", "linear", "svd", "merge_finetune")
    metrics: tuple[str | dict[str, Any], ...] | None = Field(default=None, min_length=1)
    batch_size: int = Field(default=32, ge=1)
    draws: int = Field(default=2000, ge=100)
    decoding: Decoding = Decoding()
    tune: Tune | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.baselines:
            find_baseline(name)
        make_metrics(self.metrics or (), "en")
        return self


class Recipe(Section):
    """One run of the main job.

    Args:
        name: of the run; its folder is `runs/<name>` by default.
        seed: root of every random stream.
        model: `embedded`, a folder, or a hub id.
        device: where the frozen model lives: `auto`, an accelerator where there is one, or `cpu`, `cuda`, `cuda:1`.
        dtype: its precision: `float32`, `bfloat16` or `float16`; `auto`: bfloat16 on an accelerator that computes in it, else
            float32.
        quantization_config: how the frozen model is quantised while it is loaded, in transformers' own terms, such as
            `{load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true}`.
        attention: its attention implementation by transformers' name, such as `eager` or `flash_attention_2`; None: its own.
        speed: `auto`, the speed-ups that suit the model and its device; `off`, the plain path that they are tested against.
        task: a task's name, or its name and parameters.
        data: the target's.
        splits: how many examples each split gets.
        sources: one or more.
        select_by: what the best epoch, the end of patience and the best of several runs are judged by: `loss` on the dev set, or
            the name of a metric of the answers to it.
        select_tolerance: with a metric in `select_by`: standard errors of its score within which the dev loss chooses, >= 0; 0: the
            score alone chooses. For the epochs and the points of `evaluation.tune` (`pomona.tuning.choice`).
        reward: what a controller that learns is rewarded by on the micro dev set: `loss`, the name of a metric of the answers to
            it, or weights such as `{loss: 0.5, rouge_l: 0.5}`, of the loss in nats per token and of scores over 100.
        pool: which of the sources are merged; all where None.
        merge: how the sources become one trained system, and which of its parts are trained.
        lora: the shape of each LoRA that the run trains from scratch: sources that have `data`, and the target LoRA.
        tuning: how the merge and every trained baseline are trained: epochs, learning rate, batches, the longest example.
        pruning: which entries are pruned, by what importance, when, and what a pruned entry becomes.
        controller: what sets the prune ratio: it is learned in the run, given, or chosen among several runs.
        search: where the first of two passes, which learns the ratio, differs from the second.
        evaluation: the systems to compare with, the metrics, and how answers are decoded on the test set.
        report_to: trackers that follow the run: `tensorboard`, `trackio`, `wandb`, `mlflow`; none by default. It changes no result,
            so it is no part of the recipe that a run folder holds, and a run may be resumed with others. For `adapt`; the cells
            of an experiment are not tracked.
    """

    name: RunName = "run"
    seed: int = Field(default=0, ge=0)
    model: str = EMBEDDED
    device: str = "auto"
    dtype: str = "auto"
    quantization_config: Quantization | None = None
    attention: str | None = None
    speed: Switch = "auto"
    task: TaskField = Summarization()
    data: Data
    splits: SplitSizes = SplitSizes()
    sources: tuple[Source, ...] = Field(min_length=1)
    pool: Pool | None = None
    merge: Merge = Merge()
    lora: Lora = Lora()
    tuning: Tuning = Tuning()
    pruning: Pruning = Pruning()
    controller: ControllerField = Bayes()
    search: FirstPass = FirstPass()
    select_by: str = LOSS
    select_tolerance: float = Field(default=0.0, ge=0)
    reward: RewardField = Field(default_factory=lambda: {LOSS: 1.0})
    evaluation: Evaluation = Evaluation()
    report_to: TrackersField = Field(default=(), exclude=True)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.dtype not in {"auto", *DTYPES}:
            raise ValueError(f"unknown dtype {self.dtype!r}: use one of auto, {', '.join(DTYPES)}")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources have one name: {', '.join(names)}")
        for place, source in enumerate(self.sources):
            check_weight(source.weight, f"sources.{place}.weight")
        if self.pool is not None and self.pool.top > len(names):
            raise InputError(
                f"there are {len(names)} sources", field="pool.top", value=self.pool.top, fix="Lower it, or leave `pool` out"
            )
        for name in self.merge.frozen:
            if name not in names:
                raise ValueError(f"merge.frozen names {name!r}, which is no source: {', '.join(names)}")
        if not self.trains_factors:
            self._check_frozen(names)
        elif "coefficients" in [stage.trains for stage in self.merge.stages][1:] and self.controller != Fixed(0.0):
            raise InputError(
                "coefficients come after factors, and a run that prunes ends with factors",
                field="merge.train",
                value=self.merge.train,
                fix="Put the stages of coefficients first, or use controller {name: fixed, prune_ratio: 0}",
            )
        self._check_source_units()
        check_judge(self.select_by, "select_by")
        if self.select_tolerance and self.select_by == LOSS:
            raise InputError(
                "lets the loss choose among epochs whose scores are nearly equal, and no metric scores them",
                field="select_tolerance",
                value=self.select_tolerance,
                fix="Set select_by to a metric, or leave select_tolerance out",
            )
        make_metrics(self.judges, self.task.language)
        learns = isinstance(self.controller, Controller) and self.controller.settle_step(100) > 0
        if not learns and self.reward != {LOSS: 1.0}:
            raise InputError(
                "rewards a controller that learns the ratio within the run, and this one does not",
                field="reward",
                value=self.reward,
                fix="Leave it out, or use the controller bayes; epochs and whole runs are judged by select_by",
            )
        if self.pruning.schedule != "constant" and learns:
            raise ValueError(
                f"pruning.schedule = {self.pruning.schedule!r} needs a given ratio, and this controller moves it itself: use "
                "constant, or the controller fixed or grid or tpe"
            )
        self._check_search()
        if self.tuning.max_tokens <= self.task.max_new_tokens:
            raise ValueError(
                f"tuning.max_tokens = {self.tuning.max_tokens} leaves no room for a prompt before an answer of "
                f"task.max_new_tokens = {self.task.max_new_tokens}"
            )
        return self

    def _check_frozen(self, names: Sequence[str]) -> None:
        """Without trained factors there must be trained merge weights, and nothing can be pruned."""
        if self.merge.learned_weights(names) is None:
            raise ValueError("merge.frozen names every source: nothing would be trained")
        if len(self.merge.stages) > 1 and any(stage.trains == "factors" for stage in self.merge.stages):
            raise ValueError("merge.frozen names every source: the stage factors of merge.train would train nothing")
        if self.controller != Fixed(0.0):
            raise InputError(
                "prunes factors, and all factors are frozen",
                field="controller",
                value=type(self.controller).__name__,
                fix="Use controller {name: fixed, prune_ratio: 0}, or train factors too",
            )

    def _check_source_units(self) -> None:
        apart = [name for name in trainable_merges if trainable_merges[name].module.keeps_apart]
        if self.pruning.of_sources and self.merge.method not in apart:
            raise InputError(
                f"prunes parts of single sources, which merge method {self.merge.method} does not keep apart",
                field="pruning.granularity",
                value=self.pruning.granularity,
                fix=f"Use merge method {' or '.join(apart)}, or granularity rank or module",
            )

    def _check_search(self) -> None:
        given = {name: value for name, value in self.search if value is not None}
        if given and not self.passes_twice:
            name, value = next(iter(given.items()))
            raise InputError(
                "is of the first of two passes, and this controller makes none",
                field=f"search.{name}",
                value=type(value).__name__ if name == "metric" else value,
                fix="Leave `search` out, or set controller.mode to two_pass",
            )
        metric = self.search.metric
        if self.pruning.paper and metric is not None and metric.needs_activations and not isinstance(metric, DeltaSensitivity):
            raise InputError(
                "reads norms of activations, and those of pruning.paper serve delta_sensitivity alone",
                field="search.metric",
                value=type(metric).__name__,
                fix="Use magnitude or delta_sensitivity, or leave out pruning.paper",
            )

    @property
    def trains_factors(self) -> bool:
        """Whether the main system trains any factor; else it trains merge weights alone."""
        return self.merge.trains_factors([source.name for source in self.sources])

    @property
    def passes_twice(self) -> bool:
        """Whether the ratio is learned in a pass of its own."""
        return isinstance(self.controller, Controller) and self.controller.passes == 2

    @property
    def first_pass(self) -> Recipe | None:
        """The recipe under whose seed the ratio is learned, where this is not the run's own."""
        seed = self.search.seed
        return None if seed is None or seed == self.seed else self.model_copy(update={"seed": seed})

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that judge the answers, by name; the first is the one that headlines use."""
        return make_metrics(self.evaluation.metrics or self.task.metrics, self.task.language)

    @property
    def judges(self) -> list[str]:
        """The metrics that judge something on the dev or micro dev set, by name; none where the loss does all of it."""
        return sorted({self.select_by, *self.reward} - {LOSS})

    def resolved(self) -> dict[str, object]:
        """Every value, as JSON can hold it; reading it again gives an equal recipe."""
        return json.loads(self.model_dump_json())

    def yaml(self) -> str:
        """The resolved recipe as YAML."""
        content = self.resolved()
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        # PyYAML writes some characters, as the next-line one, in a way that it does not read again; escaped it does.
        return text if read_yaml(text) == content else yaml.safe_dump(content, sort_keys=False)


class TrainRecipe(Section):
    """One plain LoRA on one task: a source or a target adapter.

    Args:
        name: of the adapter; its folder is `adapters/<name>` by default.
        data: what the adapter is trained on; `dev` and `test` are not read.
        examples: how many of them, drawn by seed; None takes all.
        lora: the shape of the adapter; with `--from` that of the given adapter is kept.
        tuning: how it is trained.
    """

    name: RunName = "adapter"
    seed: int = Field(default=0, ge=0)
    model: str = EMBEDDED
    device: str = "auto"
    dtype: str = "auto"
    quantization_config: Quantization | None = None
    attention: str | None = None
    speed: Switch = "auto"
    task: TaskField = Summarization()
    data: Data
    examples: int | None = Field(default=None, ge=1)
    lora: Lora = Lora()
    tuning: Tuning = Tuning(epochs=1, learning_rate=5e-4)
