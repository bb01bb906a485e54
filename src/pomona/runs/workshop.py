"""Training the systems of one run, each once: what the run folder already has is not trained again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pomona.adapters import Adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.control import Controller, Fixed
from pomona.errors import PomonaError
from pomona.merging import merge
from pomona.merging.weights import Weight
from pomona.runs.inputs import SourceAdapter
from pomona.runs.recipe import Recipe
from pomona.runs.store import RunStore, Trained
from pomona.seeding import derive_seed, stream
from pomona.tuning.fit import fit
from pomona.tuning.progress import Progress
from pomona.tuning.settings import FitData, Fitted, Pruning

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
    def weights(self) -> list[Weight]:
        """Their merge weights, as the recipe gives them."""
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

    def search(self, system: str, evaluations: int, find: Callable[[Callable[[Adapter], float]], Adapter]) -> Adapter:
        """An adapter that `find` finds by asking for losses on the training examples, at most `evaluations` of them.

        The loss is the mean over all completion tokens, nats, without gradient and dropout. Killed before its end, a search
        begins again.

        Raises:
            PomonaError: a loss is NaN or infinite.
        """
        kept = self.store.load_trained(system)
        if kept is None:
            started, losses = time.perf_counter(), []

            def loss(adapter: Adapter) -> float:
                losses.append(self._training_loss(system, adapter))
                self.progress.advance(1, f"loss {losses[-1]:.3f}")
                return losses[-1]

            self.progress.begin(f"searching {system}", evaluations)
            adapter = find(loss)
            self.progress.end(f"{len(losses)} losses, the lowest {min(losses):.3f}")
            self.store.save_trained(
                system,
                Fitted(
                    adapter=adapter,
                    epoch=0,
                    dev_loss=None,
                    answer=None,
                    control=None,
                    importance={},
                    history=[],
                    train_seconds=time.perf_counter() - started,
                    probe_seconds=0.0,
                    tokens=len(losses) * sum(map(len, self.data.train)),
                ),
            )
            kept = self.store.load_trained(system)
            assert kept is not None
        adapter, self.trained[system] = kept
        return adapter

    @property
    def learned(self) -> Trained:
        """The pass that learned the ratio."""
        return self.trained.get(SEARCH, self.trained[MAIN])

    def _merged(self) -> tuple[list[Adapter], list[Weight]]:
        """What is trained: every source's own columns, or one pair that a static method made of them."""
        how = self.recipe.merge
        if how.method == "concat":
            return self.sources, self.weights
        return [merge(self.sources, how.method, self.weights, how.rank, self.seed, **how.parameters)], [1.0]

    def _training_loss(self, system: str, adapter: Adapter) -> float:
        examples = self.data.train
        with attached(self.backbone, [adapter]):
            means = example_losses(self.backbone, examples, self.recipe.tuning.batch_size)
        counts = [len(example) - example.completion_start for example in examples]
        loss = sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)
        if not math.isfinite(loss):
            raise PomonaError(f"the training loss of {system} is not finite", value=loss, mend="Load the model in dtype float32")
        return loss

    def _train(
        self,
        system: str,
        adapters: Sequence[Adapter],
        weights: Sequence[Weight],
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
