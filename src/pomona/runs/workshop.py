"""Training the systems of one run, each once: what the run folder already has is not trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pomona.adapters import Adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.load import Backbone
from pomona.control import Controller, Fixed
from pomona.merging import merge
from pomona.runs.inputs import SourceAdapter
from pomona.runs.recipe import Recipe
from pomona.runs.store import RunStore, Trained
from pomona.seeding import derive_seed, stream
from pomona.tuning.fit import fit
from pomona.tuning.progress import Progress
from pomona.tuning.settings import FitData, Pruning

MAIN = "pomona"
SEARCH = "pomona_search"


@dataclass(eq=False)
class Workshop:
    """Trains on the target's train, micro dev and dev splits; it is not given the test split.

    Args:
        recipe, backbone, data, store, progress: of the run.
        prepared: the source adapters.
        trained: every system trained so far.
    """

    recipe: Recipe
    backbone: Backbone
    data: FitData
    store: RunStore
    progress: Progress
    prepared: Sequence[SourceAdapter]
    trained: dict[str, Trained] = field(default_factory=dict)

    @property
    def sources(self) -> list[Adapter]:
        """The source adapters."""
        return [source.adapter for source in self.prepared]

    @property
    def weights(self) -> list[float]:
        """Their merge weights."""
        return [source.weight for source in self.prepared]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe.seed

    def train_main(self) -> Adapter:
        """The main job: merge, fine-tune, prune, with the ratio learned in the run (or in a pass before it)."""
        pruning = self.recipe.pruning.settings()
        controller = self.recipe.controller
        if controller.passes == 2:
            self._train(SEARCH, *self._merged(), pruning, controller)
            answer = self.trained[SEARCH].answer
            assert answer is not None
            controller = Fixed(answer.prune_ratio)
        return self._train(MAIN, *self._merged(), pruning, controller)

    def train_merge(self, system: str) -> Adapter:
        """The main job without pruning."""
        return self._train(system, *self._merged())

    def train_new(self, system: str) -> Adapter:
        """A fresh LoRA on the target."""
        lora = self.recipe.lora
        start = new_adapter(self.backbone, lora.target_modules, lora.rank, lora.alpha, stream(self.seed, "lora"))
        return self._train(system, [start], [1.0])

    @property
    def learned(self) -> Trained:
        """The pass that learned the ratio."""
        return self.trained.get(SEARCH, self.trained[MAIN])

    def _merged(self) -> tuple[list[Adapter], list[float]]:
        """What is trained: every source's own columns, or one pair that a static method made of them."""
        how = self.recipe.merge
        if how.method == "concat":
            return self.sources, self.weights
        return [merge(self.sources, how.method, self.weights, how.rank, self.seed, **how.parameters)], [1.0]

    def _train(
        self,
        system: str,
        adapters: Sequence[Adapter],
        weights: Sequence[float],
        pruning: Pruning | None = None,
        controller: Controller | None = None,
    ) -> Adapter:
        found = self.store.load_trained(system)
        if found is not None:
            for event in found[1].history:
                self.store.append_event(event)
        else:
            with attached(self.backbone, adapters, weights, self.recipe.tuning.dropout) as attachment:
                fitted = fit(
                    attachment,
                    self.data,
                    self.recipe.tuning,
                    pruning=pruning,
                    controller=controller,
                    seed=derive_seed(self.seed, "fit"),
                    system=system,
                    checkpoint=self.store.checkpoint(system),
                    emit=self.store.append_event,
                    progress=self.progress,
                )
            self.store.save_trained(system, fitted)
            found = self.store.load_trained(system)
            assert found is not None
        adapter, self.trained[system] = found
        return adapter


def loaded(adapter: Adapter) -> Adapter:
    """The adapter with every module in memory, for a folder that is about to go."""
    return Adapter({module: adapter[module] for module in adapter}, adapter.base_model, adapter.provenance)
