"""Source adapters: looked at before a run, then read, or trained and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pomona.adapters import Adapter, check_compatible, check_finite, read_adapter, write_adapter
from pomona.adapters.base_modules import respelled
from pomona.backbone.attach import attached, new_adapter, target_paths
from pomona.backbone.base_copies import proven_copies
from pomona.backbone.base_modules import modules_of
from pomona.backbone.batches import encode
from pomona.backbone.embedded import cache_folder
from pomona.backbone.load import Backbone
from pomona.backbone.published_norms import check_published
from pomona.data import Example, fingerprint
from pomona.engines import NATIVE
from pomona.errors import InputError
from pomona.evaluation.answers import check_room
from pomona.evaluation.baselines import StaticMerge, TargetLora, find_baseline
from pomona.merging import merge_methods, module_weights, norm_weights
from pomona.runs.encoding import encode_examples
from pomona.runs.examples import read_examples, skipped_rows
from pomona.runs.recipe import Lora, Recipe, Source
from pomona.runs.recipe_fields import WeightField
from pomona.runs.shape import Ranks, differences, main_ranks, merged_target, opponent, warning
from pomona.seeding import derive_seed, stream
from pomona.tuning.fit import fit
from pomona.tuning.progress import Progress
from pomona.tuning.settings import FitData, Tuning
from pomona.whole_files import digest, write_whole
from pomona.whole_folders import whole_folder
from pomona.writable import check_writable

_CACHE_FORMAT = 1


@dataclass(frozen=True, eq=False)
class SourceAdapter:
    """A source, ready to be merged, and where it came from."""

    name: str
    origin: str
    adapter: Adapter
    weight: WeightField


def weighted(recipe: Recipe, prepared: Sequence[SourceAdapter]) -> list[SourceAdapter]:
    """The sources with the weights that the recipe's rule makes of the given ones (`merge.weights`)."""
    if recipe.merge.weights is None:
        return list(prepared)
    weights = norm_weights([source.adapter for source in prepared], [source.weight for source in prepared])
    return [replace(source, weight=weight) for source, weight in zip(prepared, weights, strict=True)]


@dataclass(frozen=True)
class SourceTraining:
    """A source adapter that is to be trained.

    Args:
        name: of the source.
        steps: optimizer steps.
        tokens: of one epoch.
        tuning: how.
        folder: of the cache, where the adapter is or will be.
    """

    name: str
    steps: int
    tokens: int
    tuning: Tuning
    folder: Path


@dataclass(frozen=True)
class CheckedSources:
    """The sources before anything is trained: the rank by module of each, those that need training, and warnings."""

    ranks: tuple[Ranks, ...]
    trainings: tuple[SourceTraining, ...]
    warnings: tuple[str, ...]


def check_sources(recipe: Recipe, backbone: Backbone) -> CheckedSources:
    """Look at every given adapter and every source's data before anything is trained.

    Raises:
        InputError: an adapter that cannot be read, holds NaN, or does not fit the model; data that cannot be read or encoded;
            examples longer than the model's context; a LoRA is to be trained on modules that the model does not have; a module
            that a merge weight's filters leave out.
    """
    check_room(recipe.task, recipe.tuning.max_tokens, backbone)
    skipped = skipped_rows(recipe.data, recipe.task)
    model = modules_of(backbone.model)
    given = {source.name: respelled(read_adapter(source.adapter), model) for source in recipe.sources if source.adapter is not None}
    for adapter in given.values():
        check_finite(adapter)
    trainings: list[SourceTraining] = []
    for source in recipe.sources:
        if source.data is not None:
            chosen = read_examples(source.data, source.task or recipe.task, source.examples, recipe.seed)
            found = encode_examples(chosen, backbone, source.tuning.max_tokens, f"source {source.name}")
            skipped += [*found.warnings, *skipped_rows(source.data, source.task or recipe.task)]
            folder = _cache_folder(backbone, chosen, source.lora or recipe.lora, source.tuning, _source_seed(source, recipe))
            tokens = sum(map(len, found.encoded))
            if not is_cached(folder):
                check_writable(folder)
            trainings.append(SourceTraining(source.name, source.tuning.total_steps(len(chosen)), tokens, source.tuning, folder))
    ranks = [_ranks(source, given.get(source.name), recipe, backbone) for source in recipe.sources]
    modules = {module: None for one in ranks for module in one}
    if recipe.merge.target:
        modules |= dict.fromkeys(merged_target(recipe, ranks, backbone).modules)
    module_weights([source.weight for source in recipe.sources], list(modules))
    shapes = backbone.shapes()
    if recipe.pruning.paper:
        check_published(backbone, {module: shapes[module][1] for module in modules if module in shapes})
    about_given = check_compatible(list(given.values()), model, backbone.base) if given else []
    about_given += [told for adapter in given.values() for told in proven_copies(adapter, backbone)]
    warnings = [*backbone.warnings, *skipped, *about_given, *_unlike(recipe, ranks, backbone), *_alone(recipe)]
    return CheckedSources(tuple(ranks), tuple(trainings), tuple(warnings))


def _alone(recipe: Recipe) -> list[str]:
    """A warning where several static merges are of one source and leave it as it is, so that they are one system."""
    merges = [found.method for name in recipe.evaluation.baselines if isinstance(found := find_baseline(name), StaticMerge)]
    same = [method for method in merges if merge_methods[method].identity == {}]
    if len(recipe.sources) > 1 or len(same) < 2:
        return []
    return [f"there is one source, which {', '.join(same[:-1])} and {same[-1]} leave as it is: these baselines are equal"]


def _ranks(source: Source, adapter: Adapter | None, recipe: Recipe, backbone: Backbone) -> Ranks:
    """The source's rank by module, whether it is there or will be trained."""
    if adapter is not None:
        return {module: adapter[module].rank for module in adapter}
    lora = source.lora or recipe.lora
    return dict.fromkeys(target_paths(backbone, lora.own_modules), lora.own_rank)


def _unlike(recipe: Recipe, ranks: Sequence[Ranks], backbone: Backbone) -> list[str]:
    """A warning where the target LoRA will not be trained like the merge, as far as that is known without merging."""
    baselines = [found for name in recipe.evaluation.baselines if isinstance(found := find_baseline(name), TargetLora)]
    if not baselines:
        return []
    if recipe.lora.target_modules is not None:
        target_paths(backbone, recipe.lora.target_modules)
    main = main_ranks(recipe, ranks, backbone)
    found = differences(opponent(recipe, main, backbone).ranks, main, backbone.shapes()) if main else []
    return [warning(baselines[0].label, found, recipe.lora)] if found else []


def prepare_source(source: Source, recipe: Recipe, backbone: Backbone, progress: Progress) -> SourceAdapter:
    """The source's adapter: read, or trained and kept in the cache under a fingerprint of all that shapes it."""
    if source.adapter is not None:
        adapter = respelled(read_adapter(source.adapter), modules_of(backbone.model))
        proven_copies(adapter, backbone)  # then the factors alone are the adapter
        commit = adapter.provenance.get("commit")
        origin = f"{source.adapter} (commit {commit})" if commit else str(source.adapter)
        return SourceAdapter(source.name, origin, replace(adapter, whole={}), source.weight)
    assert source.data is not None
    task = source.task or recipe.task
    chosen = read_examples(source.data, task, source.examples, recipe.seed)
    seed = _source_seed(source, recipe)
    label = f"source {source.name}"
    lora = source.lora or recipe.lora
    folder = train_cached(backbone, chosen, lora, source.tuning, seed=seed, label=label, progress=progress)
    return SourceAdapter(
        source.name, f"trained on {len(chosen)} examples: {source.data.origin}", read_adapter(folder), source.weight
    )


def _source_seed(source: Source, recipe: Recipe) -> int:
    """A stream for each name: adapters of one recipe must not start from the same random factors."""
    return derive_seed(recipe.seed, "source", source.name)


def train_cached(
    backbone: Backbone, chosen: Sequence[Example], lora: Lora, tuning: Tuning, *, seed: int, label: str, progress: Progress
) -> Path:
    """Train a plain LoRA, or find it in the cache. Returns its folder."""
    folder = _cache_folder(backbone, chosen, lora, tuning, seed)
    if not NATIVE.on_main(lambda: is_cached(folder)):
        adapter = train_plain(backbone, chosen, lora, tuning, seed=seed, label=label, progress=progress)

        def keep() -> None:
            try:
                with whole_folder(folder) as partial:  # whatever stands there: the cache is Pomona's own
                    write_adapter(adapter, partial)
                write_whole(_digest_file(folder), _digest(folder))
            except (InputError, OSError):
                if not is_cached(folder):  # else another run has trained the same one meanwhile
                    raise

        NATIVE.on_main(keep)
    return folder


def is_cached(folder: Path) -> bool:
    """Whether a LoRA is in the cache, as it was written: one that was exchanged or damaged is trained again."""
    try:
        return _digest_file(folder).read_text(encoding="utf-8") == _digest(folder)
    except (OSError, ValueError):
        return False


def _digest_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256")


def _digest(folder: Path) -> str:
    return "".join(f"{digest(path)}  {path.name}\n" for path in sorted(folder.iterdir()))


def _cache_folder(backbone: Backbone, chosen: Sequence[Example], lora: Lora, tuning: Tuning, seed: int) -> Path:
    """Where a LoRA is kept that is trained so: named by a fingerprint of all that shapes it."""
    shaped_by = {
        "format": _CACHE_FORMAT,
        "model": backbone.fingerprints,
        "examples": fingerprint(chosen),
        "lora": {"rank": lora.own_rank, "alpha": lora.alpha, "target_modules": lora.own_modules},
        "tuning": tuning.shaping(),
        "seed": seed,
        # Speed-ups change results by a rounding. Where a recipe switches them off, nothing in its run may come from them.
        **({} if backbone.speed.used else {"speed": "off"}),
        **({"mixed_precision": backbone.engine.mixed_precision} if backbone.engine.mixed_precision else {}),
    }
    key = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "adapters" / key[:32]


def train_plain(
    backbone: Backbone,
    chosen: Sequence[Example],
    lora: Lora,
    tuning: Tuning,
    *,
    seed: int,
    label: str,
    progress: Progress,
    start: Adapter | None = None,
) -> Adapter:
    """A LoRA from scratch, or from the factors of `start`, on the examples, no pruning, the last epoch's weights."""
    if start is None:
        start = new_adapter(backbone, lora.own_modules, lora.own_rank, lora.alpha, stream(seed, "lora"))
    encoded, _ = encode(chosen, backbone.tokenizer, tuning.max_tokens, backbone.embedding_rows)
    with attached(backbone, [start], dropout=tuning.dropout) as attachment:
        return fit(attachment, FitData(encoded), tuning, seed=seed, system=label, progress=progress).adapter
