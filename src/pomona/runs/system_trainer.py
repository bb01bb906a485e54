"""Training the systems of one run, each once: what the run folder already has is not trained again."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from pomona.adapters import Adapter
from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.trainable import Concat, TrainableMerge
from pomona.control import Controller, Fixed, Search, Trial
from pomona.data import Example
from pomona.errors import PomonaError
from pomona.evaluation.dev_scores import dev_scores
from pomona.evaluation.micro_dev_costs import micro_dev_costs
from pomona.evaluation.scores import LOSS, make_metrics
from pomona.merging import by_norm, harmonic_norm, merge
from pomona.merging.weights import Weight
from pomona.ratios import Answer
from pomona.runs.recipe import Recipe
from pomona.runs.shape import Ranks, Shape, main_ranks, merged_target, merges_its_opponent, opponent, taking_part, trainable
from pomona.runs.sources import SourceAdapter
from pomona.runs.store import RunStore
from pomona.runs.tune import AS_GIVEN, Point, without_point
from pomona.runs.tuned import TriedPoint, tune
from pomona.seeding import derive_seed, stream
from pomona.tuning.fit import fit
from pomona.tuning.keep_best import Judge
from pomona.tuning.probes import Costs
from pomona.tuning.progress import Progress
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning
from pomona.tuning.stages import Stage

MAIN = "pomona"
SEARCH = "pomona_search"
TARGET = "target_lora"
MERGED_TARGET = "merged_target"
"""The target LoRA that is merged, where it has another shape than the one that the run is compared with."""


@dataclass(eq=False)
class SystemTrainer:
    """Trains on the target's train, micro dev and dev splits; it is not given the test split.

    Args:
        recipe, backbone, data, store, progress: of the run.
        prepared: the source adapters.
        dev, micro_dev: these examples, for metrics of the answers to them.
        trained: every system trained so far.
        known: fresh LoRAs that runs before this one have trained on the same examples in the same way; this one adds its own.
        starts: the static merge that a system's training began with, where it was one.
        first: where the ratio is learned in a pass under a seed of its own: the same run under that seed.
        searched: that pass, where a run before this one has made it; this one adds its own.
        prefix: of the names of fresh LoRAs.
        tried: system -> its trainings at the points of the grid (`evaluation.tune`); the chosen one is in `trained`.
    """

    recipe: Recipe
    backbone: Backbone
    data: FitData
    store: RunStore
    progress: Progress
    prepared: Sequence[SourceAdapter]
    dev: Sequence[Example] = ()
    micro_dev: Sequence[Example] = ()
    trained: dict[str, Fitted] = field(default_factory=dict)
    known: dict[tuple[str, Shape], Fitted] = field(default_factory=dict)
    starts: dict[str, Adapter] = field(default_factory=dict)
    first: SystemTrainer | None = None
    searched: dict[str, Fitted] = field(default_factory=dict)
    prefix: str = ""
    tried: dict[str, list[TriedPoint]] = field(default_factory=dict)

    @property
    def sources(self) -> list[Adapter]:
        """The source adapters."""
        return [source.adapter for source in self.prepared]

    @property
    def weights(self) -> list[Weight]:
        """Their merge weights."""
        return [source.weight for source in self.prepared]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe.seed

    def train_main(self) -> Adapter:
        """The main job: merge, fine-tune, prune, with the ratio learned in the run (or in a pass before it)."""
        return self._tuned(MAIN, self._train_main, pruned=True).adapter

    def _train_main(self, point: Point) -> Fitted:
        pruning = self.recipe.pruning
        controller = self.recipe.controller
        if self._never_prunes:
            return self._train_unpruned(point)
        if isinstance(controller, Search):
            return self._train_trials(pruning, controller, point)
        pruning = pruning.following(controller)
        if controller.passes == 2:
            answer = (self.first or self)._learn(controller, point)
            self.trained |= self.first.trained if self.first else {}
            controller = Fixed(answer.ratios if answer.by_group else answer.prune_ratio)
        return self._train(MAIN, *self._merged(MAIN), pruning=pruning, controller=controller, point=point, stages=self._stages)

    @property
    def _never_prunes(self) -> bool:
        """Whether the main job is trained without a mask: factors are frozen, at its end or all the time."""
        return not self.recipe.trains_factors or self.recipe.merge.stages[-1].trains == "coefficients"

    @property
    def _stages(self) -> Sequence[Stage]:
        """The stages of the merge's training, where it has several."""
        stages = self.recipe.merge.stages
        return stages if len(stages) > 1 else ()

    def _train_unpruned(self, point: Point) -> Fitted:
        """The main job where nothing can be pruned."""
        fitted = self._train(MAIN, *self._merged(MAIN), point=point, stages=self._stages)
        unpruned = Fixed(0.0)
        control = unpruned.start(0, 0)
        found = dataclasses.replace(fitted, answer=unpruned.choose(control), control=dataclasses.asdict(control))
        self.trained[point.named(MAIN)] = found
        return found

    def _learn(self, controller: Controller, point: Point) -> Answer:
        """The pass that learns the ratio."""
        search, recipe, system = self.recipe.search, self.recipe, point.named(SEARCH)
        how, tuning = search.pruning(recipe.pruning), search.tuning(point.tuning(recipe.tuning))
        if system in self.searched and self.store.load_trained(system) is None:
            self.store.save_trained(system, dataclasses.replace(self.searched[system], reused=True))
        merged, stages = self._merged(SEARCH), self._stages
        fitted = self._train(SEARCH, *merged, pruning=how, controller=controller, tuning=tuning, point=point, stages=stages)
        self.searched.setdefault(system, _in_memory(fitted))
        answer = fitted.answer
        assert answer is not None
        return answer

    def _train_trials(self, pruning: Pruning, search: Search, point: Point) -> Fitted:
        """Whole runs at given ratios, each kept by itself; the best of them is the main system."""
        merged, seed = self._merged(MAIN), derive_seed(self.seed, "search")
        trials: list[Trial] = []
        while (prune_ratio := search.next(trials, seed)) is not None:
            system = f"{MAIN}_{prune_ratio!r}"
            given = Fixed(prune_ratio)
            fitted = self._train(system, *merged, pruning=pruning, controller=given, point=point, stages=self._stages)
            trials.append(Trial(prune_ratio, fitted.dev_scores))
        answer = search.choose(trials, seed)
        best = point.named(f"{MAIN}_{answer.prune_ratio!r}")
        found = self.trained[point.named(MAIN)] = dataclasses.replace(self.trained.pop(best), answer=answer)
        return found

    def train_merge(self, system: str, sources: Sequence[Adapter] | None = None) -> Adapter:
        """The main job without pruning; of other sources than the run's where they are given."""

        def train(point: Point) -> Fitted:
            return self._train(system, *self._merged(system, sources), point=point, stages=self._stages)

        return self._tuned(system, train).adapter

    def train_new(self, system: str) -> Adapter:
        """A fresh LoRA on the target, of the main system's shape where the recipe does not give another."""
        return self._train_fresh(system, opponent(self.recipe, self.main_ranks, self.backbone))

    def train_recalibrated(self, system: str) -> Adapter:
        """The target LoRA of `train_new`, whose own coefficients are trained, from 1, as `merge.coefficients` says."""
        target, settings = self.train_new(TARGET), self.recipe.merge.coefficients
        own = dataclasses.replace(settings.of(0, target=True), starts=None)
        how = Concat(frozen=frozenset({0}), coefficients=own)

        def train(point: Point) -> Fitted:
            return self._train(system, [target], [1.0], how, point=point, weights_rate=settings.learning_rate)

        return self._tuned(system, train).adapter

    @cached_property
    def main_ranks(self) -> Ranks:
        """What the main system trains: module -> rank."""
        known = main_ranks(self.recipe, self._source_ranks, self.backbone)
        return known or {module: factors.rank for module, factors in self._pair.factors.items()}

    @property
    def _source_ranks(self) -> list[Ranks]:
        return [{module: source[module].rank for module in source} for source in self.sources]

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
            kept = self.store.save_trained(
                system,
                Fitted(
                    adapter=adapter,
                    epoch=0,
                    dev_loss=None,
                    dev_scores=(),
                    sparsity={},
                    merge_weights={},
                    answer=None,
                    control=None,
                    importance={},
                    history=[],
                    train_seconds=time.perf_counter() - started,
                    probe_seconds=0.0,
                    tokens=len(losses) * sum(map(len, self.data.train)),
                ),
            )
        self.trained[system] = kept
        return kept.adapter

    @property
    def learned(self) -> Fitted:
        """The pass that learned the ratio."""
        return self.trained.get(SEARCH, self.trained[MAIN])

    def _merged(self, system: str, sources: Sequence[Adapter] | None = None) -> tuple[list[Adapter], list[Weight], TrainableMerge]:
        """What is trained: the adapters' own factors, side by side or summed, or one pair that a static method made of them."""
        how = trainable(self.recipe.merge, [source.name for source in self.prepared])
        if how is not None:
            return *self._parts(sources), how
        pair = self.starts[system] = self._pair if sources is None else self._pair_of(sources)
        return [pair], [1.0], Concat()

    def _parts(self, sources: Sequence[Adapter] | None = None) -> tuple[list[Adapter], list[Weight]]:
        """The adapters that are merged, and their weights."""
        sources = self.sources if sources is None else list(sources)
        if not self.recipe.merge.target:
            return sources, self.weights
        target = self._train_merged_target()
        weight: Weight = 1.0
        if self.recipe.merge.weights is not None:
            weight = by_norm(target, weight, harmonic_norm(self.sources, self.weights))
        return [*sources, target], [*self.weights, weight]

    @cached_property
    def _pair(self) -> Adapter:
        return self._pair_of()

    def _pair_of(self, sources: Sequence[Adapter] | None = None) -> Adapter:
        """The static merge that is trained, without modules that nothing is merged into: they would stay zero."""
        how = self.recipe.merge
        adapters, weights = self._parts(sources)
        merged = merge(adapters, how.method, weights, how.rank, self.seed, **how.parameters)
        kept = set(taking_part(self.recipe, self._source_ranks, self.backbone))
        return dataclasses.replace(merged, factors={module: merged[module] for module in merged if module in kept})

    def _train_merged_target(self) -> Adapter:
        """The target LoRA among the merged adapters; the opponent is the same one where it has the same shape."""
        about = self.recipe, self._source_ranks, self.backbone
        return self._train_fresh(TARGET if merges_its_opponent(*about) else MERGED_TARGET, merged_target(*about))

    def _train_fresh(self, system: str, shape: Shape) -> Adapter:
        """A fresh LoRA on the target; where it is known, its seconds are those of the run that trained it."""
        name = self.prefix + system

        def train(point: Point) -> Fitted:
            key, training = (point.named(system), shape), point.named(name)
            if key in self.known and self.store.load_trained(training) is None:
                self.store.save_trained(training, dataclasses.replace(self.known[key], reused=True))
            start = new_adapter(self.backbone, shape.modules, shape.rank, shape.alpha, stream(self.seed, "lora"))
            fitted = self._train(name, [start], [1.0], point=point)
            self.known.setdefault(key, _in_memory(fitted))
            return fitted

        return self._tuned(name, train).adapter

    def _tuned(self, system: str, train: Callable[[Point], Fitted], *, pruned: bool = False) -> Fitted:
        """The system at the point of the grid that the dev set chooses; as the recipe says where there is no grid.

        Args:
            system: its name in the run.
            train: the whole of it at a point.
            pruned: whether the training prunes.
        """
        grid = self.recipe.evaluation.tune
        if grid is None:
            return train(AS_GIVEN)
        if system not in self.tried:
            points = grid.points(prefixes=prefixes_are_runs(self.recipe, pruned=pruned))
            self.tried[system] = tune(
                points,
                train,
                self.trained,
                lambda training: system_of(training) == system,
                self.recipe.select_tolerance,
            )
            for event in self.trained[system].history:
                self.store.append_event(event)
        return self.trained[system]

    def _judge(self) -> Judge | None:
        """What the best epoch is chosen by, where it is not the dev loss."""
        recipe = self.recipe
        if recipe.select_by == LOSS:
            return None
        metric = make_metrics([recipe.select_by], recipe.task.language)[recipe.select_by]
        return partial(
            dev_scores,
            examples=self.dev,
            task=recipe.task,
            metric=metric,
            batch_size=recipe.evaluation.batch_size,
            max_tokens=recipe.tuning.max_tokens,
            decoding=recipe.evaluation.decoding,
        )

    def _costs(self) -> Costs | None:
        """What a learning controller is rewarded by, where it is not the micro dev loss."""
        recipe = self.recipe
        if recipe.reward == {LOSS: 1.0}:
            return None
        return partial(
            micro_dev_costs,
            examples=self.micro_dev,
            encoded=self.data.micro_dev,
            weights=recipe.reward,
            metrics=make_metrics([name for name in recipe.reward if name != LOSS], recipe.task.language),
            task=recipe.task,
            batch_size=recipe.evaluation.batch_size,
            max_tokens=recipe.tuning.max_tokens,
            decoding=recipe.evaluation.decoding,
        )

    def _training_loss(self, system: str, adapter: Adapter) -> float:
        examples = self.data.train
        with attached(self.backbone, [adapter]):
            means = example_losses(self.backbone, examples, self.recipe.tuning.batch_size)
        counts = [len(example) - example.completion_start for example in examples]
        loss = sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)
        if not math.isfinite(loss):
            raise PomonaError(f"the training loss of {system} is not finite", value=loss, fix="Load the model in dtype float32")
        return loss

    def _train(
        self,
        system: str,
        adapters: Sequence[Adapter],
        weights: Sequence[Weight],
        how: TrainableMerge | None = None,
        pruning: Pruning | None = None,
        controller: Controller | None = None,
        tuning: Tuning | None = None,
        point: Point = AS_GIVEN,
        stages: Sequence[Stage] = (),
        weights_rate: float | None = None,
    ) -> Fitted:
        system, tuning = point.named(system), tuning or point.tuning(self.recipe.tuning)
        found = self.store.load_trained(system)
        if found is not None:
            for event in found.history if system not in self.trained else ():
                self.store.append_event(event)
        else:
            with attached(self.backbone, adapters, weights, self.recipe.tuning.dropout, how) as attachment:
                fitted = fit(
                    attachment,
                    self.data,
                    tuning,
                    pruning=pruning,
                    controller=controller,
                    judge=self._judge(),
                    tolerance=self.recipe.select_tolerance,
                    costs=self._costs(),
                    weights_learning_rate=point.weights_rate(weights_rate or self.recipe.merge.weights_rate, self.recipe.tuning),
                    stages=stages,
                    seed=derive_seed(self.seed, "fit"),
                    system=system,
                    checkpoint=self.store.checkpoint(system),
                    emit=self.store.append_event,
                    progress=self.progress,
                )
            found = self.store.save_trained(system, fitted)
        self.trained[system] = found
        return found


def system_of(training: str) -> str:
    """The system that a training belongs to, by their names: that of the main system may be one of several runs, or its search."""
    name = without_point(training)
    return MAIN if name.startswith(f"{MAIN}_") else name


def prefixes_are_runs(recipe: Recipe, *, pruned: bool) -> bool:
    """Whether a training of fewer epochs is the first part of one of more epochs, so that nothing in it depends on its length.

    Args:
        recipe: the run's.
        pruned: whether it is the main job, which prunes; then its ratio must be given, and without a ramp.
    """
    if recipe.tuning.steps_before_average(10**9) > 0 or len(recipe.merge.stages) > 1:  # a share of all steps
        return False
    return not pruned or (isinstance(recipe.controller, Fixed) and recipe.pruning.schedule in ("constant", "once"))


def _in_memory(fitted: Fitted) -> Fitted:
    return dataclasses.replace(fitted, adapter=loaded(fitted.adapter))


def loaded(adapter: Adapter) -> Adapter:
    """The adapter with every module in memory, for a folder that is about to go."""
    return Adapter({module: adapter[module] for module in adapter}, adapter.base_model, adapter.provenance)
