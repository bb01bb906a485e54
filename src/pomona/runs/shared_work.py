"""What runs of one process have in common, done once: the model in memory, examples in splits and as tokens, source adapters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TypeVar

from pomona.adapters import Adapter
from pomona.backbone.load import Backbone, load_backbone
from pomona.data import Example, Splits, fingerprint
from pomona.evaluation.answers import Answers
from pomona.runs.encoding import Encoding, encode_splits
from pomona.runs.examples import read_examples, read_splits, splits_around_test
from pomona.runs.recipe import Data, Recipe, Source
from pomona.runs.recipe_model import Loading, loading
from pomona.runs.shape import Shape
from pomona.runs.sources import CheckedSources, SourceAdapter, check_sources, prepare_source
from pomona.tuning.progress import Progress
from pomona.tuning.settings import Fitted

T = TypeVar("T")
_MODEL = Loading._fields
_EXAMPLES = ("data", "task", "splits", "seed")


class SharedWork:
    """Each kind of work by the part of a recipe that shapes it; what one run did is there for the next.

    Only the latest model is kept. Nothing that is handed out may be changed, but for `fresh_loras`.

    Args:
        test_seed: draws the test split of every run, so that runs of several seeds answer the same examples; None: a run's own.
    """

    def __init__(self, test_seed: int | None = None) -> None:
        self.test_seed = test_seed
        self._backbone: tuple[Loading, Backbone] | None = None
        self._made: dict[tuple[object, ...], object] = {}

    def drop(self) -> None:
        """Let go of all that was made, the model above all."""
        self._backbone = None
        self._made.clear()

    def draws_test_apart(self, recipe: Recipe) -> bool:
        """Whether the run's test split is not the one that its own seed draws."""
        return self.test_seed is not None and self.test_seed != recipe.seed

    def splits(self, recipe: Recipe) -> Splits:
        """The target's four splits.

        Raises:
            InputError: whatever is wrong with the data; a document in two splits.
        """
        return self._once("splits", _key(recipe, *_EXAMPLES), lambda: self._drawn(recipe))

    def backbone(self, recipe: Recipe) -> Backbone:
        """The model, which takes its fingerprint once.

        Raises:
            InputError: it cannot be loaded.
        """
        key = loading(recipe)
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = None  # two models at once may be more than memory holds
            self._backbone = key, load_backbone(*key)
        return self._backbone[1]

    def encoded(self, recipe: Recipe) -> Encoding:
        """The three splits that training may see, as tokens, what was cut of all four, and warnings.

        Raises:
            InputError: a completion that is too long, of a test example too.
        """
        key = _key(recipe, *_MODEL, *_EXAMPLES, "tuning")
        return self._once("encoded", key, lambda: encode_splits(recipe, self.splits(recipe), self.backbone(recipe)))

    def checked(self, recipe: Recipe) -> CheckedSources:
        """The sources, looked at before anything is trained.

        Raises:
            InputError: see `check_sources`.
        """
        parts = (name for name in type(recipe).model_fields if name not in {"name", "controller"})
        key = _key(recipe, *parts)
        return self._once("checked", key, lambda: check_sources(recipe, self.backbone(recipe)))

    def tried(self, recipe: Recipe, trial: bool, make: Callable[[], T]) -> T:
        """What a trial step told; that of one recipe stands for all with its model, data and tuning."""
        return self._once("trial step", (_key(recipe, *_MODEL, "data", "task", "splits", "tuning"), trial), make)

    def source(self, source: Source, recipe: Recipe, progress: Progress) -> SourceAdapter:
        """The source's adapter in memory: read, or trained and kept in the cache."""

        def prepare() -> SourceAdapter:
            found = prepare_source(source, recipe, self.backbone(recipe), progress)
            return dataclasses.replace(found, adapter=_in_memory(found.adapter))

        key = source.model_dump_json(exclude={"weight"})
        if source.adapter is None:
            key += _key(recipe, *_MODEL, "task", "lora", "seed")
        prepared = self._once("source", key, prepare)
        return dataclasses.replace(prepared, weight=source.weight)

    def fresh_loras(self, recipe: Recipe) -> dict[tuple[str, Shape], Fitted]:
        """The LoRAs trained on the target alone, by system and shape, for the runs to fill: nothing else of a merge shapes them."""
        return self._once("fresh LoRAs", fresh_key(recipe), dict)

    def searched(self, recipe: Recipe) -> dict[str, Fitted]:
        """The pass that learned the ratio, for the runs to fill: where it has a seed of its own, it is the same for several."""
        return self._once("searched", searched_key(recipe), dict)

    def ranked(self, recipe: Recipe, make: Callable[[], T]) -> T:
        """The scores of the recipe's sources on its training examples, which depend on neither merge nor controller."""
        return self._once("ranked", _key(recipe, *_MODEL, *_EXAMPLES, "tuning", "sources", "lora"), make)

    def fingerprint(self, adapter: Adapter) -> str:
        """The adapter's fingerprint."""
        return self._once("fingerprint", adapter, adapter.fingerprint)

    def answers(self, recipe: Recipe, give: Callable[[], Answers]) -> Answers:
        """The bare model's answers to the test split; the seed has no part in them but through the examples."""
        key = _key(recipe, *_MODEL, "task", "tuning", "evaluation") + fingerprint(self.splits(recipe).test)
        return self._once("answers", key, give)

    def _once(self, what: str, key: object, make: Callable[[], T]) -> T:
        if (what, key) not in self._made:
            self._made[what, key] = make()
        return self._made[what, key]  # pyright: ignore[reportReturnType]

    def _drawn(self, recipe: Recipe) -> Splits:
        if self.test_seed is None or not self.draws_test_apart(recipe):
            return read_splits(recipe)
        return splits_around_test(recipe, self.test_seed, lambda data: self._pool(recipe, data))

    def _pool(self, recipe: Recipe, data: Data) -> tuple[Example, ...]:
        key = data.model_dump_json() + repr(recipe.task)
        return self._once("pool", key, lambda: read_examples(data, recipe.task, None, 0))


def fresh_key(recipe: Recipe) -> str:
    """All that shapes a LoRA trained on the target alone, but for its shape."""
    return _key(recipe, *_MODEL, *_EXAMPLES, "tuning", "lora", "select_by", "select_tolerance") + _how_answered(recipe)


def searched_key(recipe: Recipe) -> str:
    """All that shapes the pass that learns the ratio."""
    return _key(recipe, *(name for name in type(recipe).model_fields if name not in {"name", "evaluation"})) + _how_answered(recipe)


def _how_answered(recipe: Recipe) -> str:
    """How the dev and micro dev sets are answered, for `select_by` and `reward`."""
    return recipe.evaluation.model_dump_json(include={"batch_size", "decoding"})


def _key(recipe: Recipe, *parts: str) -> str:
    resolved = recipe.resolved()
    return json.dumps([resolved.get(part) for part in parts])  # `report_to` is no part of what is resolved


def _in_memory(adapter: Adapter) -> Adapter:
    return dataclasses.replace(adapter, factors={module: adapter[module] for module in adapter})
