"""The experiment: every cell of a matrix run in a folder of its own, one after the other, and the table that they make."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pomona.engines import NATIVE
from pomona.engines.launch import failed_alike
from pomona.errors import InputError, PomonaError
from pomona.folder_lock import FolderLock, holds_nothing, is_locked
from pomona.runs.adapt import execute, finished, open_store
from pomona.runs.alone import alone
from pomona.runs.base_plan import Plan
from pomona.runs.estimate import Training
from pomona.runs.experiments.csv_files import write_csv
from pomona.runs.experiments.recipe import EXPERIMENT, RESULT, TABLE, Cell, Experiment
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.experiments.scores import gather
from pomona.runs.experiments.table import table
from pomona.runs.experiments.workers import find_engine, run_on_workers
from pomona.runs.plan import RunPlan, prepare
from pomona.runs.record import RunRecord
from pomona.runs.record_inputs import describe_splits
from pomona.runs.shared_work import SharedWork
from pomona.runs.store import RECIPE, RunStore
from pomona.tuning.progress import Progress, Silent
from pomona.whole_files import write_whole
from pomona.writable import check_writable


def run_experiment(
    experiment: Experiment,
    cells: Sequence[Cell],
    output: Path | str | None = None,
    *,
    chosen: Sequence[Cell] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    engine: str = "local",
    workers: int | None = None,
) -> ExperimentRecord:
    """Run the cells and make the table.

    Everything that is wrong with any of them is found before anything is trained or written. A cell that fails leaves its reason
    in its record, and the others go on. Cells that are done are not run again, one that was interrupted goes on.

    Args:
        experiment: as `read_experiment` gives it.
        cells: all of them.
        output: the experiment's folder; `runs/<name>` by default. It must not hold anything.
        chosen: the cells to run; all by default. The table shows all that are done.
        resume: go on with the experiment that stands there.
        progress: shown to a person.
        engine: where the cells run: `local`, on this machine, or `ray`, on a cluster (extra `ray`).
        workers: how many cells run at a time. Local: in this process where it is 1 or None. Ray: None is what the cluster has
            room for. Each worker holds its own model. The number has no influence on any result but by the number of torch's
            threads, which rounds sums differently.

    Returns:
        What `experiment.json` holds.

    Raises:
        InputError: wrong input; a folder that stands there; a cell that was run with another recipe or other data.
    """
    progress = progress or Silent()
    folder = Path(output) if output is not None else Path("runs") / experiment.name
    chosen = cells if chosen is None else chosen
    shared = SharedWork(test_seed=experiment.seeds[0])
    lock, check = FolderLock(folder), lambda: check_folder(folder, cells, shared, resume=resume)
    NATIVE.on_main(check)
    if NATIVE.world_size > 1 and (engine != "local" or (workers or 1) > 1):
        raise InputError(
            "each worker runs cells of its own, but the processes of a launcher share the work of every cell",
            field="--engine, --workers",
            fix="Start `pomona experiment` without a launcher, or leave out these options",
        )
    found_engine = find_engine(engine, workers, folder)
    with alone(lock, check) if resume else contextlib.nullcontext():  # a new folder is made when all else is right
        plan = prepare_cells(chosen, folder, shared, progress)
        for warning in plan.warnings:
            progress.warn(warning)
        with alone(lock, check):
            NATIVE.on_main(lambda: _write(folder / EXPERIMENT, experiment.yaml()))
            if found_engine is None:
                for place, cell in enumerate(chosen, start=1):
                    _run(cell, plan.cells.get(cell.path), folder, shared, _Numbered(progress, f"{place}/{len(chosen)} {cell.path}"))
            else:
                lacking = [cell for cell in chosen if cell.path in plan.cells]
                del plan  # each worker has its own model
                shared.drop()
                run_on_workers(lacking, found_engine, progress)
            return NATIVE.on_main(lambda: _result(experiment, cells, folder))


def _result(experiment: Experiment, cells: Sequence[Cell], folder: Path) -> ExperimentRecord:
    """Gather what the cells have found, and write it."""
    found = gather(experiment, cells, folder)
    _write(folder / RESULT, found.model_dump_json(indent=2) + "\n")
    _write(folder / TABLE, table(found))
    write_csv(folder, found)
    return found


def check_folder(folder: Path, cells: Sequence[Cell], shared: SharedWork, *, resume: bool) -> None:
    """Refuse a folder that holds something else, or cells that were run with other recipes than they have now.

    Raises:
        InputError: it does.
    """
    check_writable(folder)
    if not resume:
        if folder.exists() and not holds_nothing(folder):
            raise InputError("already exists", file=folder, fix="Give another --output, or --resume to go on with it")
        return
    if not (folder / EXPERIMENT).is_file():
        raise InputError("no experiment to resume", file=folder, fix="Leave out --resume to start one")
    for cell in cells:
        _store(cell, folder, shared)


@dataclass(frozen=True, eq=False, kw_only=True)
class ExperimentPlan(Plan):
    """What the cells work on that are not done; what several have in common is trained once.

    Args:
        cells: path -> plan.
        total: how many cells there are, with those that are done.
    """

    cells: Mapping[str, RunPlan]
    total: int

    def facts(self) -> list[str]:
        """How many cells there are."""
        return [f"cells: {self.total}, of which {self.total - len(self.cells)} are done"]

    def work(self) -> list[str]:
        """What each system answers."""
        answers = sum(len(plan.splits.test) * len(plan.systems) for plan in self.cells.values())
        return [f"answers, not in the time below: at most {answers}"]


def prepare_cells(
    cells: Sequence[Cell], folder: Path, shared: SharedWork, progress: Progress, *, trial: bool = False
) -> ExperimentPlan:
    """Look at everything that the cells name, and train nothing.

    Of a cell that is done only the data are looked at. A trial step is made for each model, data and tuning.

    Raises:
        InputError: the first thing that is wrong, with the cell; cells of one setting that cannot be compared; data that have
            changed since a cell was run on them.
    """
    plans: dict[str, RunPlan] = {}
    firsts: dict[str, Cell] = {}
    progress.begin("checking every cell", len(cells))
    for cell in cells:
        try:
            record = _store(cell, folder, shared).record()
            if record is not None and record.status == "done":
                _check_data(cell, record, shared)
            else:
                plans[cell.path] = prepare(cell.recipe, only=cell.only, shared=shared, trial=trial)
            _check_comparable(firsts.setdefault(cell.setting, cell), cell, shared)
        except InputError as error:
            raise InputError(str(error), field=cell.path) from error
        progress.advance(1)
    warnings = dict.fromkeys(warning for plan in plans.values() for warning in plan.warnings)
    progress.end(f"{len(cells)} cells" + (f", {len(warnings)} warnings" if warnings else ""))
    return ExperimentPlan(
        warnings=tuple(warnings),
        trainings=tuple(_once_each(plans)),
        prepare_seconds=sum(plan.prepare_seconds for plan in plans.values()),
        least_bytes=max((plan.least_bytes for plan in plans.values()), default=0),
        cells=plans,
        total=len(cells),
        untimed=next((plan.untimed for plan in plans.values() if plan.trial is None and plan.trainings), "nothing is trained"),
    )


def _once_each(plans: Mapping[str, RunPlan]) -> Iterator[Training]:
    """The trainings of all cells under the cell's path; what another cell has trained before is left out."""
    seen: set[object] = set()
    for path, plan in plans.items():
        for one in plan.trainings:
            if one.once is None or one.once not in seen:
                yield dataclasses.replace(one, name=f"{path}: {one.name}")
            seen.add(one.once)


def _check_data(cell: Cell, record: RunRecord, shared: SharedWork) -> None:
    """The data must be those that the cell was run on, or the other cells would be run on others."""
    if record.splits != describe_splits(shared.splits(cell.recipe)):
        raise InputError("the data are not as they were when this cell was run", fix="Put them back, or remove the cell's folder")


def _check_comparable(first: Cell, cell: Cell, shared: SharedWork) -> None:
    """Cells of one setting must answer the same test examples and be scored in the same way."""
    one, other = first.recipe, cell.recipe
    tests = [[(example.document, example.references) for example in shared.splits(recipe).test] for recipe in (one, other)]
    if tests[0] != tests[1]:
        raise InputError(
            f"has other test examples than {first.path}, so the two cannot be compared", fix="Make it a setting of its own"
        )
    if one.metrics != other.metrics:
        raise InputError(f"is scored by other metrics than {first.path}", fix="Give the experiment's `metrics`")


def states(folder: Path, cells: Sequence[Cell], shared: SharedWork) -> Mapping[str, str]:
    """Each cell's path -> `done`, `failed`, `interrupted`, `running`, `stopped` (it was killed), or `new`."""
    records = {cell.path: _store(cell, folder, shared).record() for cell in cells}
    return {path: _state(record, folder / path) for path, record in records.items()}


def _state(record: RunRecord | None, folder: Path) -> str:
    if record is None:
        return "new"
    return "stopped" if record.status == "running" and not is_locked(folder) else record.status


def _run(cell: Cell, plan: RunPlan | None, folder: Path, shared: SharedWork, progress: Progress) -> None:
    """Run a cell; one without a plan is done."""
    store = _store(cell, folder, shared)
    if plan is None:
        finished(store, progress)
        return
    reason = run_cell(cell, plan, folder, shared, progress)
    if reason is not None:
        progress.begin("failed", 0)
        progress.end(" ".join(reason.split()))


def run_cell(cell: Cell, plan: RunPlan, folder: Path, shared: SharedWork, progress: Progress | None = None) -> str | None:
    """Run a cell that is not done, or go on with it: why it failed, which its record says too, or None."""
    try:
        execute(plan, _store(cell, folder, shared), progress)
    except (PomonaError, RuntimeError, ArithmeticError) as error:  # of torch, out of memory among them
        if not failed_alike():
            raise
        return str(error)
    return None


def _store(cell: Cell, folder: Path, shared: SharedWork) -> RunStore:
    place = folder / cell.path
    return open_store(cell.recipe, place, cell.only, shared, resume=NATIVE.on_main((place / RECIPE).exists))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error


class _Numbered:
    """A progress display that says which cell each stage belongs to."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self.advance, self.end, self.ratio, self.warn = progress.advance, progress.end, progress.ratio, progress.warn

    def begin(self, stage: str, total: int) -> None:
        self._progress.begin(f"{self._name}: {stage}", total)
