"""The main job: sources merged, fine-tuned and pruned on the target, the ratio learned, all of it measured and recorded."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from pathlib import Path

from pomona.adapters import Adapter
from pomona.backbone.load import Backbone
from pomona.data import Splits
from pomona.engines import NATIVE
from pomona.engines.launch import failure_elsewhere
from pomona.evaluation.answers import Answers, answer
from pomona.evaluation.baselines import Baseline
from pomona.runs.best_sources import with_best_sources
from pomona.runs.callbacks import Callback
from pomona.runs.environment import environment
from pomona.runs.plan import RunPlan, prepare
from pomona.runs.predictions import prediction_line
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord, SystemDescription
from pomona.runs.record_inputs import describe_inputs
from pomona.runs.record_results import describe_results
from pomona.runs.record_systems import describe_systems, describe_tuning
from pomona.runs.shared_work import SharedWork
from pomona.runs.sources import weighted
from pomona.runs.store import RunStore
from pomona.runs.system_trainer import MAIN, SystemTrainer, loaded
from pomona.runs.trackers import check_trackers
from pomona.runs.trainings import SearchPass
from pomona.tuning.progress import Progress, Silent


def adapt(
    recipe: Recipe,
    output: Path | str | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    only: str | None = None,
    shared: SharedWork | None = None,
    listener: Callback | None = None,
) -> RunRecord:
    """Run a recipe.

    Everything that can be wrong with the input is found before anything is trained or written. A run that was interrupted goes
    on with `resume` and ends as it would have ended.

    If `torch.distributed` is initialised, every rank calls this with the same arguments, and gets the same record. The ranks share
    the work and the run folder's disk; rank 0 writes.

    Args:
        recipe: what to do.
        output: the run folder; `runs/<name>` by default. It must not hold another run.
        resume: go on with the run that stands there.
        progress: shown to a person.
        only: a baseline's name, to make that system and no other.
        listener: hears of each event; see `pomona.runs.callbacks`.
        shared: what runs before this one in the process have done already, and where this one leaves what it does.

    Returns:
        The record, as `record.json` holds it.

    Raises:
        InputError: wrong input.
        PomonaError: training failed; the record says so.
    """
    progress, shared = progress or Silent(), shared or SharedWork(test_seed=recipe.seed)
    store = open_store(recipe, Path(output) if output is not None else Path("runs") / recipe.name, only, shared, resume=resume)
    check_trackers(recipe.report_to)
    if listener is not None:
        store.tell = listener.on_event
    with store.alone() if resume else contextlib.nullcontext():  # a new folder is made when all else is right
        return finished(store, progress) or execute(prepare(recipe, only=only, shared=shared, progress=progress), store, progress)


def plan_run(recipe: Recipe, folder: Path, *, resume: bool = False, trial: bool = False) -> RunPlan:
    """The plan of a run in a folder, which `adapt` would carry out.

    Raises:
        InputError: whatever `adapt` would raise before it begins.
    """
    shared = SharedWork(test_seed=recipe.seed)
    open_store(recipe, folder, None, shared, resume=resume)
    return prepare(recipe, shared=shared, trial=trial)


def open_store(recipe: Recipe, folder: Path, only: str | None, shared: SharedWork, *, resume: bool) -> RunStore:
    """The folder of a run; nothing is written yet.

    Raises:
        InputError: something else stands there, or nothing that could be resumed.
    """
    return RunStore(folder, recipe_text(recipe, only, shared), resume=resume)


def finished(store: RunStore, progress: Progress) -> RunRecord | None:
    """The record of a run that is done; None where there is something left to do."""
    record = store.record()
    if record is None or record.status != "done":
        return None
    store.drop_checkpoints()
    _say(record, progress)
    return record


def execute(plan: RunPlan, store: RunStore, progress: Progress | None = None) -> RunRecord:
    """Do what was planned.

    Args:
        plan: of `prepare`.
        store: the run's folder.
        progress: shown to a person.

    Returns:
        The record, as `record.json` holds it.

    Raises:
        InputError: the run was begun with other data, sources or another model.
        PomonaError: training failed; the record says so.
    """
    with store.alone():
        return _executed(plan, store, progress or Silent())


def _executed(plan: RunPlan, store: RunStore, progress: Progress) -> RunRecord:
    started = time.perf_counter() - plan.prepare_seconds
    given, only, splits, shared = plan.recipe, plan.only, plan.splits, plan.shared
    backbone = plan.backbone
    store.begin()
    record = store.record() or _new_record(given, backbone, list(plan.warnings))
    record.cut = plan.encoding.cut
    record.status, record.error = "running", None
    store.write_record(record)
    if NATIVE.is_main:
        store.tell({"kind": "begin", "name": given.name, "folder": str(store.folder), "recipe": given.resolved()})
    with _accounted(store, record, started):
        plan = with_best_sources(plan, record, progress)
        recipe, first = plan.recipe, plan.first
        prepared = weighted(recipe, [shared.source(source, recipe, progress) for source in recipe.sources])
        prints = [shared.fingerprint(source.adapter) for source in prepared]
        describe_inputs(record, given, backbone, splits, prepared, prints, first.splits if first else None)
        store.write_record(record)
        record.timing.load_seconds += time.perf_counter() - started
        known, data = shared.fresh_loras(recipe), plan.encoding.data
        trainer = SystemTrainer(recipe, backbone, data, store, progress, prepared, splits.dev, splits.micro_dev, known=known)
        if first is not None and only is None:
            trainer.first = _first_trainer(first, shared, trainer)
        store.clear_history()
        systems = make_systems(plan, trainer, record)
        answers = {name: _answers(name, adapter, trainer, splits, record, shared) for name, adapter in systems.items()}
        adapter = systems[only or MAIN]
        adapter = None if adapter is None else loaded(adapter)

        def finish() -> RunRecord:
            describe_results(record, trainer, splits, adapter, answers)
            describe_systems(record, trainer, systems)
            describe_tuning(record, trainer)
            store.write_predictions(_predictions(splits, answers))
            if adapter is not None:
                store.write_adapter(adapter)
            record.status = "done"
            return record

        complete = NATIVE.on_main(finish)
    _say(complete, progress)
    store.drop_checkpoints()
    return complete


def _first_trainer(first: SearchPass, shared: SharedWork, main: SystemTrainer) -> SystemTrainer:
    """Where the ratio is learned under a seed of its own."""
    return SystemTrainer(
        first.recipe,
        main.backbone,
        first.encoding.data,
        main.store,
        main.progress,
        weighted(first.recipe, [shared.source(source, first.recipe, main.progress) for source in first.recipe.sources]),
        first.splits.dev,
        first.splits.micro_dev,
        known=shared.fresh_loras(first.recipe),
        searched=shared.searched(first.recipe),
        prefix="search_",
    )


def recipe_text(recipe: Recipe, only: str | None, shared: SharedWork) -> str:
    """`recipe.yaml` of a run: the resolved recipe, under what else shapes the run in lines of comment."""
    lines = [f"# Of all systems only {only} is made.\n"] if only is not None else []
    if shared.draws_test_apart(recipe):
        lines.append(f"# The test split is drawn by seed {shared.test_seed}, the others by the recipe's.\n")
    return "".join(lines) + recipe.yaml()


def _say(record: RunRecord, progress: Progress) -> None:
    for warning in record.warnings:
        progress.warn(warning)


def _new_record(recipe: Recipe, backbone: Backbone, warnings: list[str]) -> RunRecord:
    """The record of a run that has only begun."""
    return RunRecord(
        status="running",
        name=recipe.name,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        recipe=recipe.resolved(),
        environment=environment() | {"model": backbone.where},
        fingerprints={},
        model=backbone.name,
        task=type(recipe.task).__name__,
        primary_metric=next(iter(recipe.metrics)),
        splits={},
        warnings=warnings,
    )


def make_systems(plan: RunPlan, trainer: SystemTrainer, record: RunRecord) -> dict[str, Adapter | None]:
    """Every system as an adapter, the main one first trained and last named; each is described in the record."""
    # Static merges come first: what can be had without training is there before it.
    static = {name: one.make(name, trainer) for name, one in plan.baselines.items() if not one.trains}
    main = trainer.train_main() if plan.only is None else None
    systems: dict[str, Adapter | None] = {}
    for name, baseline in plan.baselines.items():
        systems[name] = static[name] if name in static else baseline.make(name, trainer)
        record.systems[name] = _described(baseline)
    if plan.only is None:
        systems[MAIN] = main
        record.systems[MAIN] = SystemDescription(label="Pomona", description=_made(trainer.recipe))
    return systems


def _made(recipe: Recipe) -> str:
    """What the main system is, in half a sentence."""
    if not recipe.trains_factors:
        return "merged with trained coefficients, all factors frozen"
    return "merged, fine-tuned, and pruned at the ratio that its controller gives"


def _described(baseline: Baseline) -> SystemDescription:
    return SystemDescription(label=baseline.label, description=baseline.description)


def _answers(
    name: str, adapter: Adapter | None, trainer: SystemTrainer, splits: Splits, record: RunRecord, shared: SharedWork
) -> Answers:
    """A system's answers on the test split, given once."""
    recipe = trainer.recipe

    def give() -> Answers:
        return answer(
            trainer.backbone,
            adapter,
            splits.test,
            recipe.task,
            batch_size=recipe.evaluation.batch_size,
            max_tokens=recipe.tuning.max_tokens,
            progress=trainer.progress,
            label=record.systems[name].label,
            decoding=recipe.evaluation.decoding,
        )

    found = trainer.store.load_answers(name)
    if found is None:
        found = give() if adapter is not None else shared.answers(recipe, give)
        trainer.store.save_answers(name, found)
    return found


def _predictions(splits: Splits, answers: dict[str, Answers]) -> Iterator[dict[str, object]]:
    for place, example in enumerate(splits.test):
        texts = {name: given.texts[place] for name, given in answers.items()}
        losses = {name: given.losses[place] for name, given in answers.items()}
        yield prediction_line(example, texts, losses)


@contextlib.contextmanager
def _accounted(store: RunStore, record: RunRecord, started: float) -> Iterator[None]:
    """Whatever happens within the block, the record says how it ended and how long it took."""
    before = record.timing.total_seconds
    try:
        yield
    except BaseException as error:
        if (other := failure_elsewhere()) is not None:  # a launcher ends the other processes by a signal
            record.status, record.error = "failed", f"in another process: {other.text}"
        elif isinstance(error, KeyboardInterrupt):
            record.status = "interrupted"
        else:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        record.timing.total_seconds = before + time.perf_counter() - started
        with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
            store.write_record(record)
        raise
    record.timing.total_seconds = before + time.perf_counter() - started
    store.write_record(record)
