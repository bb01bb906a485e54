"""What the main job is compared with. Each baseline ends as one adapter, or none, and is evaluated like any other system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pomona.adapters.factors import Adapter
from pomona.errors import InputError, suggest
from pomona.merging import merge, merge_methods
from pomona.merging.ranks import merged_ranks
from pomona.merging.weights import Weight
from pomona.registry import Registry


class Trainer(Protocol):
    """What a baseline may use: the run's source adapters and its way to train, never its test data."""

    @property
    def sources(self) -> Sequence[Adapter]:
        """The source adapters."""
        ...

    @property
    def weights(self) -> Sequence[Weight]:
        """Their merge weights."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    def train_new(self, system: str) -> Adapter:
        """A fresh LoRA trained on the target's training examples."""
        ...

    def train_merge(self, system: str, sources: Sequence[Adapter] | None = None) -> Adapter:
        """The trainable merge of the main job, fine-tuned in the same way, without pruning.

        Args:
            system: its name in the run.
            sources: adapters to merge in place of the run's, of the same modules and ranks; None: the run's.
        """
        ...

    def train_recalibrated(self, system: str) -> Adapter:
        """The LoRA of `target_lora`, trained once for both, whose coefficients are then trained, all factors frozen."""
        ...

    def search(self, system: str, evaluations: int, find: Callable[[Callable[[Adapter], float]], Adapter]) -> Adapter:
        """What `find` makes of the training examples without a gradient.

        Args:
            system: its name in the run.
            evaluations: how many losses `find` asks for.
            find: gets `loss`, which gives an adapter's mean loss on the training examples, nats per completion token.
        """
        ...


class Baseline(ABC):
    """A system to compare with. Subclasses are frozen dataclasses, registered in `baselines`."""

    trains: ClassVar[bool]
    """Whether making it takes the training examples; if so it is made after the main job, once, and kept in the run folder."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What tables call it."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it is, in half a sentence."""

    def check(self, ranks: Sequence[Mapping[str, int]], weights: Sequence[Weight]) -> None:  # noqa: B027
        """Say whether it can be made at all, before anything is trained; by default it can.

        Args:
            ranks: of each source adapter, module -> rank.
            weights: their merge weights.

        Raises:
            InputError: it cannot be made of such sources.
        """

    @abstractmethod
    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """The adapter, or None for the bare model. `system` is its name in the run."""


baselines: Registry[Baseline] = Registry("baseline")


@baselines.register("zero_shot")
@dataclass(frozen=True)
class ZeroShot(Baseline):
    """The base model as it is."""

    trains: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """What tables call it."""
        return "Zero shot"

    @property
    def description(self) -> str:
        """What it is."""
        return "the base model alone"

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """No adapter."""
        return None


@baselines.register("target_lora")
@dataclass(frozen=True)
class TargetLora(Baseline):
    """A LoRA trained from scratch on the target's training examples, as without any source adapter."""

    trains: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """What tables call it."""
        return "Target LoRA"

    @property
    def description(self) -> str:
        """What it is."""
        return "a fresh LoRA on the target's training examples"

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """Train it."""
        return trainer.train_new(system)


@baselines.register("merge_finetune")
@dataclass(frozen=True)
class MergeFinetune(Baseline):
    """The merge, fine-tuned on the target's training examples without pruning: what pruning itself must beat."""

    trains: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """What tables call it."""
        return "Merge + fine-tune"

    @property
    def description(self) -> str:
        """What it is."""
        return "the same merge and training, nothing pruned"

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """Train it."""
        return trainer.train_merge(system)


@baselines.register("static_merge")
@dataclass(frozen=True)
class StaticMerge(Baseline):
    """The source adapters merged by one method and not trained. Its short name is the method's own: `svd`.

    Args:
        method: a name in `merge_methods`.
    """

    trains: ClassVar[bool] = False
    method: str = "svd"

    def __post_init__(self) -> None:
        _ = merge_methods[self.method]

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"Merge ({self.method})"

    @property
    def description(self) -> str:
        """What it is."""
        return f"the source adapters merged by {self.method}, not trained"

    def check(self, ranks: Sequence[Mapping[str, int]], weights: Sequence[Weight]) -> None:
        """Refuse sources that the method cannot merge."""
        merged_ranks(ranks, self.method, weights, self._rank(ranks))

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """Merge the sources."""
        ranks = [{module: source[module].rank for module in source} for source in trainer.sources]
        return merge(trainer.sources, self.method, trainer.weights, rank=self._rank(ranks), seed=trainer.seed)

    def _rank(self, ranks: Sequence[Mapping[str, int]]) -> int | None:
        """Where the method gets to choose, that of the largest source module."""
        return max(rank for one in ranks for rank in one.values()) if self.method == "svd" else None


def find_baseline(name: str) -> Baseline:
    """The baseline called `name`: a registered one, or a merge method's static merge.

    Raises:
        InputError: neither.
        MissingPackageError: it needs an optional package that is not installed.
    """
    if name in baselines:
        return baselines.create(name)
    if name in merge_methods:
        return StaticMerge(method=name)
    raise InputError("no such baseline", value=name, fix=suggest(name, [*baselines, *merge_methods]))
