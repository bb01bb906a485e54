"""The main job: sources merged, fine-tuned and pruned on the target, the ratio learned, all of it measured and recorded."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pomona.adapters import Adapter
from pomona.backbone.load import Backbone
from pomona.data import Splits
from pomona.errors import InputError
from pomona.evaluation.baselines import Baseline, find_baseline
from pomona.evaluation.evaluate import Answers, answer
from pomona.runs.assemble import describe_inputs, describe_results
from pomona.runs.check import Checked, check_everything
from pomona.runs.describe import describe_systems
from pomona.runs.environment import environment
from pomona.runs.predictions import prediction_line
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord, SystemDescription
from pomona.runs.shared import Shared
from pomona.runs.store import RunStore
from pomona.runs.workshop import MAIN, Workshop, loaded
from pomona.tuning.progress import Progress, Silent


def adapt(
    recipe: Recipe,
    output: Path | str | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    only: str | None = None,
    shared: Shared | None = None,
) -> RunRecord:
    """Run a recipe.

    Everything that can be wrong with the input is found before anything is trained or written. A run that was interrupted goes
    on with `resume` and ends as it would have ended.

    Args:
        recipe: what to do.
        output: the run folder; `runs/<name>` by default. It must not hold another run.
        resume: go on with the run that stands there.
        progress: shown to a person.
        only: a baseline's name, to make that system and no other.
        shared: what runs before this one in the process have done already, and where this one leaves what it does.

    Returns:
        The record, as `record.json` holds it.

    Raises:
        InputError: wrong input.
        PomonaError: training failed; the record says so.
    """
    progress = progress or Silent()
    # Who shares work has looked at every recipe before the first run, and said what it found.
    checking = progress if shared is None else Silent()
    shared = shared or Shared(test_seed=recipe.seed)
    folder = Path(output) if output is not None else Path("runs") / recipe.name
    started = time.perf_counter()
    store = RunStore(folder, recipe_text(recipe, only, shared), resume=resume)
    record = store.record()
    if record is not None and record.status == "done":
        store.drop_checkpoints()
        _say(record, progress)
        return record
    checked = check_everything(recipe, shared, checking)
    splits, backbone, data = checked.splits, checked.backbone, checked.encoding.data
    store.begin()
    record = record or _new_record(recipe, backbone, checked.warnings)
    record.cut = checked.encoding.cut
    record.status, record.error = "running", None
    store.write_record(record)
    with _accounted(store, record, started):
        prepared = [shared.source(source, recipe, progress) for source in recipe.sources]
        prints = [shared.fingerprint(source.adapter) for source in prepared]
        describe_inputs(record, recipe, backbone, splits, prepared, prints, checked.first[0] if checked.first else None)
        store.write_record(record)
        record.timing.load_seconds += time.perf_counter() - started
        known = shared.fresh_loras(recipe)
        workshop = Workshop(recipe, backbone, data, store, progress, prepared, splits.dev, splits.micro_dev, known=known)
        if recipe.first_pass is not None and only is None:
            workshop.first = _first_workshop(recipe.first_pass, checked, shared, workshop)
        store.clear_history()
        systems = make_systems(workshop, record) if only is None else _make_baseline(only, workshop, record)
        answers = {name: _answers(name, adapter, workshop, splits, record, shared) for name, adapter in systems.items()}
        adapter = systems[only or MAIN]
        adapter = None if adapter is None else loaded(adapter)
        describe_results(record, workshop, splits, adapter, answers)
        describe_systems(record, workshop, systems)
        store.write_predictions(_predictions(splits, answers))
        if adapter is not None:
            store.write_adapter(adapter)
        record.status = "done"
    _say(record, progress)
    store.drop_checkpoints()
    return record


def _first_workshop(recipe: Recipe, checked: Checked, shared: Shared, main: Workshop) -> Workshop:
    """Where the ratio is learned under a seed of its own."""
    assert checked.first is not None
    splits, encoding = checked.first
    return Workshop(
        recipe,
        main.backbone,
        encoding.data,
        main.store,
        main.progress,
        [shared.source(source, recipe, main.progress) for source in recipe.sources],
        splits.dev,
        splits.micro_dev,
        known=shared.fresh_loras(recipe),
        searched=shared.searched(recipe),
        prefix="search_",
    )


def recipe_text(recipe: Recipe, only: str | None, shared: Shared) -> str:
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
        systems[name] = static[name] if name in static else baseline.make(name, workshop)
        record.systems[name] = _described(baseline)
    systems[MAIN] = main
    record.systems[MAIN] = SystemDescription(
        label="Pomona", description="merged, fine-tuned, and pruned at the ratio that its controller gives"
    )
    return systems


def _make_baseline(name: str, workshop: Workshop, record: RunRecord) -> dict[str, Adapter | None]:
    """One baseline and nothing else."""
    baseline = find_baseline(name)
    adapter = baseline.make(name, workshop)
    record.systems[name] = _described(baseline)
    return {name: adapter}


def _described(baseline: Baseline) -> SystemDescription:
    return SystemDescription(label=baseline.label, description=baseline.description)


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


def _answers(name: str, adapter: Adapter | None, workshop: Workshop, splits: Splits, record: RunRecord, shared: Shared) -> Answers:
    """A system's answers on the test split, given once."""
    recipe = workshop.recipe

    def give() -> Answers:
        return answer(
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

    found = workshop.store.load_answers(name)
    if found is None:
        found = give() if adapter is not None else shared.answers(recipe, give)
        workshop.store.save_answers(name, found)
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
    except KeyboardInterrupt:
        record.status = "interrupted"
        raise
    except Exception as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        record.timing.total_seconds = before + time.perf_counter() - started
        store.write_record(record)
