"""From a recipe to the plan of its run: the one look that `check`, `--dry-run`, `adapt` and every cell of an experiment take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from pomona.adapters import Adapter, Factors
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat
from pomona.control import Controller
from pomona.data import Splits
from pomona.errors import InputError
from pomona.evaluation.baselines import Baseline, MergeFinetune, TargetLora, find_baseline
from pomona.evaluation.scores import make_metrics
from pomona.evaluation.target_recalibrated import TargetRecalibrated
from pomona.merging.ranks import merged_ranks
from pomona.metrics.script import script_warning
from pomona.pruning import layer_groups
from pomona.runs.base_plan import Plan
from pomona.runs.encoding import Encoding
from pomona.runs.estimate import TrialStep, least_bytes, timed, tried
from pomona.runs.evaluate import ready_metrics
from pomona.runs.recipe import Recipe
from pomona.runs.shape import Ranks, merged_parts, taking_part, trainable
from pomona.runs.shared_work import SharedWork
from pomona.runs.sources import CheckedSources
from pomona.runs.system_trainer import MAIN
from pomona.runs.trackers import check_trackers
from pomona.runs.trainings import SearchPass, planned_trainings
from pomona.tuning.progress import Progress, Silent
from pomona.tuning.settings import FitData


@dataclass(frozen=True, eq=False, kw_only=True)
class RunPlan(Plan):
    """What a run of a recipe works on.

    Args:
        recipe: what to do.
        only: the baseline that is made in place of the main job.
        splits: the target's.
        encoding: the splits as tokens.
        sources: what is known of the source adapters.
        baselines: those that are made, by name.
        left_out: those that cannot be made of these sources -> the reason.
        first: see `SearchPass`.
        shared: holds the model, which is not kept here: plans of several models may be there at once.
    """

    recipe: Recipe
    only: str | None
    splits: Splits
    encoding: Encoding
    sources: CheckedSources
    baselines: Mapping[str, Baseline]
    left_out: Mapping[str, str]
    first: SearchPass | None
    shared: SharedWork

    @property
    def backbone(self) -> Backbone:
        """The model."""
        return self.shared.backbone(self.recipe)

    def facts(self) -> list[str]:
        """Data, model, sources."""
        sizes = ", ".join(f"{len(part)} {name}" for name, part in self.splits.named())
        return [
            f"data: {sizes}; no split shares a document with another",
            f"model: {self.backbone.name}, {len(self.backbone.linear_modules())} linear modules, {self.backbone.where}",
            f"sources: {', '.join(source.name for source in self.recipe.sources)}",
        ]

    @property
    def systems(self) -> list[str]:
        """The systems that are made, by name."""
        return list(self.baselines) if self.only is not None else [MAIN, *self.baselines]

    def work(self) -> list[str]:
        """The systems and what they answer."""
        left_out = [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        count = f"{len(self.splits.test)} test examples, with up to {self.recipe.task.max_new_tokens} tokens each"
        judged = ", and the dev or micro dev sets too, for select_by or reward" if self.recipe.judges else ""
        return [
            f"systems: {', '.join(self.systems)}",
            *left_out,
            f"answers, not in the time below: each system's to {count}{judged}",
        ]

    def summary(self) -> dict[str, object]:
        """See `Plan.summary`; with the systems."""
        return super().summary() | {"systems": self.systems, "left_out": dict(self.left_out)}


def prepare(
    recipe: Recipe,
    *,
    only: str | None = None,
    shared: SharedWork | None = None,
    progress: Progress | None = None,
    trial: bool = False,
) -> RunPlan:
    """Read, load and encode all that a run will use, and try by shape all that it will make; says each warning.

    Args:
        recipe: what to do.
        only: the baseline that is to be made in place of the main job.
        shared: what this process has done already.
        progress: shown to a person.
        trial: whether to try a step of the real model, for time and memory.

    Raises:
        InputError: the first thing that is wrong.
    """
    shared, progress, started = shared or SharedWork(test_seed=recipe.seed), progress or Silent(), time.perf_counter()
    check_trackers(recipe.report_to)
    progress.begin("reading data", 0)
    splits, other = shared.splits(recipe), recipe.first_pass
    first_splits = None if other is None else shared.splits(other)
    ready_metrics(recipe.evaluation.metrics or recipe.task.metrics, recipe.task.language)
    ready_metrics(recipe.judges, recipe.task.language)
    progress.end(", ".join(f"{len(part)} {name}" for name, part in splits.named()))
    progress.begin("loading the model and checking the sources", 0)
    backbone = shared.backbone(recipe)
    sources, encoding = shared.checked(recipe), shared.encoded(recipe)
    warnings, first = list(sources.warnings), None
    if other is not None and first_splits is not None:
        first = SearchPass(recipe=other, splits=first_splits, encoding=shared.encoded(other), sources=shared.checked(other))
        warnings += first.sources.warnings
        warnings += [f"the search, of seed {other.seed}: {one}" for one in first.encoding.warnings]
    references = [reference for example in splits.test for reference in example.references]
    judges = make_metrics(recipe.evaluation.metrics or recipe.task.metrics, recipe.task.language) | dict.fromkeys(recipe.judges)
    warnings += [*encoding.warnings, *filter(None, [script_warning(references, recipe.task.language, judges, "the references")])]
    baselines, left_out = _baselines(recipe, only, sources)
    warnings += [f"the baseline {name} is left out: {reason}" for name, reason in left_out.items()]
    least, measured, untimed = _rehearse(recipe, only, baselines, sources, encoding.data, shared, trial=trial)
    progress.end(f"{backbone.name}, {backbone.where}")
    plan = RunPlan(
        warnings=tuple(dict.fromkeys(warnings)),
        trainings=timed(planned_trainings(recipe, only, baselines, sources, encoding, first, backbone), measured),
        prepare_seconds=time.perf_counter() - started,
        least_bytes=least,
        trial=measured,
        untimed=untimed,
        recipe=recipe,
        only=only,
        splits=splits,
        encoding=encoding,
        sources=sources,
        baselines=baselines,
        left_out=left_out,
        first=first,
        shared=shared,
    )
    for warning in plan.warnings:
        progress.warn(warning)
    return plan


def _baselines(recipe: Recipe, only: str | None, sources: CheckedSources) -> tuple[dict[str, Baseline], dict[str, str]]:
    """The baselines that can be made, and why others cannot; one that is asked for alone must be."""
    weights = [source.weight for source in recipe.sources]
    made = {name: find_baseline(name) for name in ([only] if only is not None else recipe.evaluation.baselines)}
    left_out: dict[str, str] = {}
    for name, baseline in list(made.items()):
        try:
            baseline.check(sources.ranks, weights)
        except InputError as error:
            if only is not None:
                raise
            left_out[name] = str(error)
            del made[name]
    return made, left_out


def _rehearse(
    recipe: Recipe,
    only: str | None,
    baselines: Mapping[str, Baseline],
    sources: CheckedSources,
    data: FitData,
    shared: SharedWork,
    *,
    trial: bool,
) -> tuple[int, TrialStep | None, str]:
    """Attach what the main system trains, with stand-ins for what is not there yet, and try a step of it where asked.

    Returns:
        Bytes that training takes without activations; what a step takes; why that is not known.

    Raises:
        InputError: the sources cannot be merged in this way; there are more groups of layers than layers.
    """
    backbone = shared.backbone(recipe)
    if only is not None and not isinstance(baselines[only], MergeFinetune | TargetLora | TargetRecalibrated):
        return least_bytes(backbone, None), None, "nothing is trained by a gradient"
    pruning = None if only is not None or not recipe.trains_factors else recipe.pruning
    with _attached_stand_ins(recipe, sources, backbone) as attachment:
        if pruning is not None and isinstance(recipe.controller, Controller):
            layer_groups(list(attachment.layers), recipe.controller.layer_groups)
            pruning = pruning.following(recipe.controller)
        measured = shared.tried(recipe, trial, lambda: tried(attachment, data, recipe.tuning, pruning, trial=trial))
        return least_bytes(backbone, attachment), *measured


def _attached_stand_ins(recipe: Recipe, sources: CheckedSources, backbone: Backbone) -> AbstractContextManager[Attachment]:
    """The main system's trainable merge with factors of the right shapes."""
    ranks, weights = merged_parts(recipe, sources.ranks, backbone)
    how = trainable(recipe.merge, [source.name for source in recipe.sources])
    if how is None:
        pair = merged_ranks(ranks, recipe.merge.method, weights, recipe.merge.rank, recipe.merge.parameters)
        ranks, weights, how = (
            [{module: pair[module] for module in taking_part(recipe, sources.ranks, backbone)}],
            [1.0],
            Concat(),
        )
    return attached(backbone, [stand_in(one, backbone) for one in ranks], weights, recipe.tuning.dropout, how)


def stand_in(ranks: Ranks, backbone: Backbone) -> Adapter:
    """An adapter of these ranks whose update is zero."""
    shapes, generator = backbone.shapes(), torch.Generator().manual_seed(0)
    return Adapter(
        {
            module: Factors(torch.rand(rank, shapes[module][1], generator=generator), torch.zeros(shapes[module][0], rank))
            for module, rank in ranks.items()
        },
        backbone.name,
    )
