"""The trainings of a run, as its recipe gives them: sources, a target LoRA, the search for the ratio, the main job, baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pomona.backbone.load import Backbone
from pomona.control import Controller, Fixed, Search
from pomona.data import Splits
from pomona.evaluation.baselines import Baseline, MergeFinetune, TargetLora
from pomona.evaluation.lorahub import LoraHub
from pomona.evaluation.target_recalibrated import TargetRecalibrated
from pomona.runs.encoding import Encoding
from pomona.runs.estimate import Training, count_tokens, plain_training, pruned_training, summed
from pomona.runs.recipe import Recipe
from pomona.runs.shape import main_ranks, merged_target, merges_its_opponent, opponent
from pomona.runs.shared_work import fresh_key, searched_key
from pomona.runs.sources import CheckedSources, is_cached
from pomona.runs.system_trainer import MAIN, MERGED_TARGET, SEARCH, TARGET, prefixes_are_runs
from pomona.runs.tune import points_of
from pomona.tuning.settings import FitData, Tuning


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchPass:
    """What the pass works on that learns the ratio, where it has a seed of its own."""

    recipe: Recipe
    splits: Splits
    encoding: Encoding
    sources: CheckedSources


def planned_trainings(
    recipe: Recipe,
    only: str | None,
    baselines: Mapping[str, Baseline],
    sources: CheckedSources,
    encoding: Encoding,
    first: SearchPass | None,
    backbone: Backbone,
) -> list[Training]:
    """All trainings of the run, in order."""
    data = encoding.data
    found = _source_trainings(sources) + (_source_trainings(first.sources) if first is not None else [])
    if recipe.pool is not None:
        tokens = count_tokens(data.train)
        found.append(Training(f"scores of {len(recipe.sources)} sources", 0, tokens, (len(recipe.sources) + 1) * tokens))
    fresh = fresh_key(recipe), recipe.evaluation.tune

    def plain(name: str, data: FitData, once: object = None) -> Training:
        return at_each_point(recipe, lambda tuning: plain_training(name, data, tuning, once))

    makes_merge = only is None or isinstance(baselines[only], MergeFinetune)
    if makes_merge and recipe.merge.target:
        same = merges_its_opponent(recipe, sources.ranks, backbone)
        shape = merged_target(recipe, sources.ranks, backbone)
        found.append(plain(TARGET if same else MERGED_TARGET, data, (*fresh, shape)))
        if first is not None and only is None:
            once = fresh_key(first.recipe), recipe.evaluation.tune, shape
            found.append(plain(f"search_{found[-1].name}", first.encoding.data, once))
    if only is None:
        found += _main_trainings(recipe, encoding, first)
    for name, baseline in baselines.items():
        if isinstance(baseline, LoraHub):
            found.append(Training(name, 0, 0, baseline.evaluations * count_tokens(data.train)))
            continue
        known = main_ranks(recipe, sources.ranks, backbone) if isinstance(baseline, TargetLora | TargetRecalibrated) else None
        once = known and (*fresh, opponent(recipe, known, backbone))
        if isinstance(baseline, TargetRecalibrated):
            found += [] if TARGET in {one.name for one in found} else [plain(TARGET, data, once)]
            once = None
        if baseline.trains and name not in {one.name for one in found}:
            found.append(plain(name, data, once))
    return found


def _source_trainings(sources: CheckedSources) -> list[Training]:
    return [
        Training(f"source {one.name}, in the cache", 0, 0, once=one.folder)
        if is_cached(one.folder)
        else Training(f"source {one.name}", one.steps, one.tuning.epochs * one.tokens, once=one.folder)
        for one in sources.trainings
    ]


def _main_trainings(recipe: Recipe, encoding: Encoding, first: SearchPass | None) -> list[Training]:
    """The main job, with the pass before it that learns the ratio."""
    pruning, controller, search = recipe.pruning, recipe.controller, recipe.search

    stages = recipe.merge.stages
    if not recipe.trains_factors or stages[-1].trains == "coefficients":
        return [at_each_point(recipe, lambda tuning: plain_training(MAIN, encoding.data, tuning, stages=stages))]

    def main(controller: Controller | Search) -> Training:
        return at_each_point(
            recipe, lambda tuning: pruned_training(MAIN, encoding.data, tuning, pruning, controller, stages=stages), pruned=True
        )

    if not (isinstance(controller, Controller) and controller.passes == 2):
        return [main(controller)]
    data = encoding.data if first is None else first.encoding.data
    how = search.pruning(recipe.pruning)
    once = None if first is None else (searched_key(recipe), recipe.evaluation.tune)
    searched = at_each_point(
        recipe, lambda tuning: pruned_training(SEARCH, data, search.tuning(tuning), how, controller, once, stages), pruned=True
    )
    return [searched, main(Fixed(0.0))]


def at_each_point(recipe: Recipe, train: Callable[[Tuning], Training], *, pruned: bool = False) -> Training:
    """All trainings of a system that is tuned over the recipe's grid, as one.

    Args:
        recipe: the run's.
        train: the system's training with the given settings.
        pruned: whether the training prunes.
    """
    points = points_of(recipe.evaluation.tune, prefixes=prefixes_are_runs(recipe, pruned=pruned))
    return summed([train(point.tuning(recipe.tuning)) for point in points])
