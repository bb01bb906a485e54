"""The main job: sources merged, fine-tuned and pruned on the target, the ratio learned, all of it measured and recorded."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pomona.adapters import Adapter
from pomona.backbone.batches import encode
from pomona.backbone.load import Backbone, load_backbone
from pomona.data import Splits
from pomona.errors import InputError
from pomona.evaluation.baselines import Baseline, find_baseline
from pomona.evaluation.evaluate import Answers, answer
from pomona.runs.assemble import describe_inputs, describe_results
from pomona.runs.environment import environment
from pomona.runs.inputs import check_sources, prepare_source, read_splits
from pomona.runs.predictions import prediction_line
from pomona.runs.recipe import Recipe
from pomona.runs.record import CutRecord, RunRecord, SystemDescription
from pomona.runs.store import RunStore
from pomona.runs.workshop import MAIN, Workshop, loaded
from pomona.tuning.progress import Progress, Silent
from pomona.tuning.settings import FitData


def adapt(recipe: Recipe, output: Path | str | None = None, *, resume: bool = False, progress: Progress | None = None) -> RunRecord:
    """Run a recipe.

    Everything that can be wrong with the input is found before anything is trained or written. A run that was interrupted goes
    on with `resume` and ends as it would have ended.

    Args:
        recipe: what to do.
        output: the run folder; `runs/<name>` by default. It must not hold another run.
        resume: go on with the run that stands there.
        progress: shown to a person.

    Returns:
        The record, as `record.json` holds it.

    Raises:
        InputError: wrong input.
        PomonaError: training failed; the record says so.
    """
    progress = progress or Silent()
    folder = Path(output) if output is not None else Path("runs") / recipe.name
    started = time.perf_counter()
    store = RunStore(folder, recipe.yaml(), resume=resume)
    record = store.record()
    if record is not None and record.status == "done":
        store.drop_checkpoints()
        return record
    progress.begin("reading data", 0)
    splits = read_splits(recipe)
    for metric in recipe.metrics.values():
        metric.table(["a"], [["a"]])  # an encoder or a segmenter that cannot be had is found now
    progress.end(", ".join(f"{len(part)} {name}" for name, part in splits.named()))
    progress.begin("loading the model and checking the sources", 0)
    backbone = load_backbone(recipe.model, recipe.device, recipe.dtype)
    warnings = check_sources(recipe, backbone)
    data, cut = _encode(recipe, splits, backbone)
    progress.end(backbone.name)
    warnings += _cut_warnings(recipe, cut)
    store.begin()
    record = record or _new_record(recipe, backbone, warnings)
    record.cut = cut
    record.status, record.error = "running", None
    store.write_record(record)
    with _accounted(store, record, started):
        prepared = [prepare_source(source, recipe, backbone, progress) for source in recipe.sources]
        describe_inputs(record, recipe, backbone, splits, prepared)
        store.write_record(record)
        record.timing.load_seconds += time.perf_counter() - started
        workshop = Workshop(recipe, backbone, data, store, progress, prepared)
        store.clear_history()
        systems = make_systems(workshop, record)
        answers = {name: _answers(name, adapter, workshop, splits, record) for name, adapter in systems.items()}
        adapter = systems[MAIN]
        assert adapter is not None
        adapter = loaded(adapter)
        describe_results(record, workshop, splits, adapter, answers)
        store.write_predictions(_predictions(splits, answers))
        store.write_adapter(adapter)
        record.status = "done"
    store.drop_checkpoints()
    return record


def _new_record(recipe: Recipe, backbone: Backbone, warnings: list[str]) -> RunRecord:
    """The record of a run that has only begun."""
    return RunRecord(
        status="running",
        name=recipe.name,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        recipe=recipe.resolved(),
        environment=environment(),
        fingerprints={},
        model=backbone.name,
        task=type(recipe.task).__name__,
        primary_metric=next(iter(recipe.metrics)),
        splits={},
        warnings=warnings,
    )


def make_systems(workshop: Workshop, record: RunRecord) -> dict[str, Adapter | None]:
    """Every system as an adapter, the main one first trained and last named; each is described in the record."""
    chosen = {name: find_baseline(name) for name in workshop.recipe.evaluation.baselines}
    # Static merges come first: sources that a method cannot merge are found before anything is trained.
    static = _static_merges(chosen, workshop, record)
    main = workshop.train_main()
    systems: dict[str, Adapter | None] = {}
    for name, baseline in chosen.items():
        if name not in static and not baseline.trains:
            continue
        systems[name] = adapter = static[name] if name in static else baseline.make(name, workshop)
        rank = max(adapter[module].rank for module in adapter) if adapter else None
        record.systems[name] = SystemDescription(label=baseline.label, description=baseline.description, rank=rank)
    systems[MAIN] = main
    record.systems[MAIN] = SystemDescription(
        label="Pomona", description="merged, fine-tuned, and pruned at the ratio that was learned"
    )
    return systems


def _static_merges(chosen: Mapping[str, Baseline], workshop: Workshop, record: RunRecord) -> dict[str, Adapter | None]:
    """The baselines that need no training; one that cannot merge these sources is left out, and the record says why."""
    made = {}
    for name, baseline in chosen.items():
        if not baseline.trains:
            try:
                made[name] = baseline.make(name, workshop)
            except InputError as error:
                warning = f"the baseline {name} is left out: {error}"
                record.warnings += [] if warning in record.warnings else [warning]
    return made


def _encode(recipe: Recipe, splits: Splits, backbone: Backbone) -> tuple[FitData, dict[str, CutRecord]]:
    """The three splits that training may see, as tokens, and what was cut; a test completion that is too long is found now."""
    encoded, cut = {}, {}
    for name, part in splits.named():
        encoded[name], prompts = encode(part, backbone.tokenizer, recipe.tuning.max_tokens)
        characters = [example.cut_characters for example in part]
        cut[name] = CutRecord(
            documents=sum(count > 0 for count in characters),
            characters=sum(characters),
            prompts=prompts.prompts,
            tokens=prompts.tokens,
        )
    return FitData(encoded["train"], encoded["micro_dev"], encoded["dev"]), cut


def _cut_warnings(recipe: Recipe, cut: Mapping[str, CutRecord]) -> list[str]:
    """What was cut though nobody asked for it: the task's limit on a document is the recipe's own choice."""
    return [
        f"too long for tuning.max_tokens = {recipe.tuning.max_tokens}, and cut: {found.prompts} of the prompts of {name}, by "
        f"{found.tokens} tokens in all"
        for name, found in cut.items()
        if found.prompts
    ]


def _answers(name: str, adapter: Adapter | None, workshop: Workshop, splits: Splits, record: RunRecord) -> Answers:
    """A system's answers on the test split, given once."""
    found = workshop.store.load_answers(name)
    if found is None:
        recipe = workshop.recipe
        found = answer(
            workshop.backbone,
            adapter,
            splits.test,
            recipe.task,
            batch_size=recipe.evaluation.batch_size,
            max_tokens=recipe.tuning.max_tokens,
            progress=workshop.progress,
            label=record.systems[name].label,
            decoding=recipe.evaluation.decoding,
        )
        workshop.store.save_answers(name, found)
    return found


def _predictions(splits: Splits, answers: dict[str, Answers]) -> Iterator[dict[str, object]]:
    for place, example in enumerate(splits.test):
        texts = {name: given.texts[place] for name, given in answers.items()}
        yield prediction_line(example, texts)


@contextlib.contextmanager
def _accounted(store: RunStore, record: RunRecord, started: float) -> Iterator[None]:
    """Whatever happens within the block, the record says how it ended and how long it took."""
    before = record.timing.total_seconds
    try:
        yield
    except KeyboardInterrupt:
        record.status = "interrupted"
        raise
    except Exception as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        record.timing.total_seconds = before + time.perf_counter() - started
        store.write_record(record)
