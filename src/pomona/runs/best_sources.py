"""The sources of a recipe scored on its training examples, best first; and the plan of a run with the best of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pomona.backbone.pool import agreements, pool_losses
from pomona.errors import InputError
from pomona.runs.plan import RunPlan, prepare
from pomona.runs.pool import By
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.record import PoolRecord, RankedSource, RunRecord
from pomona.runs.shared_work import SharedWork
from pomona.seeding import stream
from pomona.tuning.progress import Progress

_TOKENS_ON_A_CPU = 2048
"""Of one forward pass without gradient: more at once gain nothing on a CPU."""


def with_best_sources(plan: RunPlan, record: RunRecord, progress: Progress) -> RunPlan:
    """The plan with the sources that the recipe's `pool` chooses; the same plan where it has none.

    Args:
        plan: with all sources.
        record: gets the scores; a resumed run has them.
        progress: shown to a person.

    Raises:
        InputError: the chosen sources cannot be merged as the recipe says.
    """
    pool = plan.recipe.pool
    if pool is None:
        return plan
    if record.pool is None:
        record.pool = rank_sources(plan.recipe, plan.shared, pool.by, pool.top, progress)
    chosen = {one.name for one in record.pool.candidates if one.chosen}
    reduced = prepare(with_sources(plan.recipe, chosen), only=plan.only, shared=plan.shared)
    record.warnings = list(dict.fromkeys([*record.warnings, *reduced.warnings]))
    return reduced


def with_sources(recipe: Recipe, chosen: set[str]) -> Recipe:
    """The recipe with some of its sources and without a pool.

    Raises:
        InputError: it is no recipe any more, such as one whose sources are all frozen.
    """
    content = recipe.resolved()
    sources, merge = content["sources"], content["merge"]
    assert isinstance(sources, list)
    assert isinstance(merge, dict)
    merge = merge | {"frozen": [name for name in merge["frozen"] if name in chosen]}
    sources = [source for source in sources if source["name"] in chosen]
    try:
        return parse_recipe(content | {"sources": sources, "merge": merge, "pool": None}, Recipe)
    except InputError as error:
        raise InputError(f"the chosen sources {', '.join(sorted(chosen))} make no run: {error}", field="pool") from error


def pool_of(recipe: Recipe, folder: Path | None) -> Recipe:
    """The recipe with every adapter folder in `folder` as a source, named by the folder, in place of its own; None keeps these.

    Raises:
        InputError: there is no adapter in the folder.
    """
    if folder is None:
        return recipe
    found = sorted(config.parent for config in folder.glob("*/adapter_config.json"))
    if not found:
        raise InputError("holds no adapter folders", field="--adapters", value=str(folder), fix="Give the folder that they are in")
    sources = [{"name": path.name, "adapter": str(path)} for path in found]
    merge = recipe.merge.model_copy(update={"frozen": ()})
    return parse_recipe(recipe.model_copy(update={"merge": merge, "pool": None}).resolved() | {"sources": sources}, Recipe)


def rank_sources(recipe: Recipe, shared: SharedWork, by: By, top: int, progress: Progress) -> PoolRecord:
    """Score every source on the training examples; no dev or test example is read.

    Args:
        recipe: its sources are the candidates; a source that it trains is trained first, or found in the cache.
        shared: what this process has done already.
        by: what the order is by.
        top: how many are chosen, >= 1.
        progress: shown to a person.

    Raises:
        PomonaError: a loss or the gradient is not finite.
    """
    started, fresh = time.perf_counter(), False

    def make() -> tuple[float, Sequence[RankedSource]]:
        nonlocal fresh
        fresh = True
        return _scored(recipe, shared, progress)

    base_loss, scored = shared.ranked(recipe, make)
    best_first = sorted(scored, key=lambda one: one.loss if by == "loss" else -one.agreement)
    candidates = [one.model_copy(update={"chosen": place < top}) for place, one in enumerate(best_first)]
    seconds = time.perf_counter() - started if fresh else 0.0
    return PoolRecord(by=by, base_loss=base_loss, candidates=candidates, seconds=seconds)


def _scored(recipe: Recipe, shared: SharedWork, progress: Progress) -> tuple[float, Sequence[RankedSource]]:
    """The loss of the bare model, and every source's scores in the recipe's order."""
    backbone, examples, tuning = shared.backbone(recipe), shared.encoded(recipe).data.train, recipe.tuning
    adapters = [shared.source(source, recipe, progress).adapter for source in recipe.sources]
    progress.begin(f"scoring {len(adapters)} sources by loss", 0)
    max_tokens = _TOKENS_ON_A_CPU if backbone.device.type == "cpu" else tuning.batch_size * tuning.max_tokens
    base_loss, *losses = pool_losses(backbone, adapters, examples, max_tokens)
    progress.end(f"without any {base_loss:.3f}, the lowest {min(losses):.3f}")
    progress.begin(f"scoring {len(adapters)} sources by gradient", len(examples))
    agreed = agreements(
        backbone,
        adapters,
        examples,
        tuning.batch_size,
        stream(recipe.seed, "pool"),
        checkpointing=tuning.gradient_checkpointing,
        advance=progress.advance,
    )
    progress.end(f"the highest agreement {max(agreed):.4f}")
    rows = zip(recipe.sources, losses, agreed, strict=True)
    return base_loss, [RankedSource(name=source.name, loss=loss, agreement=one) for source, loss, one in rows]
