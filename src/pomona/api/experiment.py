"""Run an experiment: systems, settings and seeds, and one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pomona.engines import NATIVE
from pomona.report.experiment_page import write_experiment_report
from pomona.runs.experiments.recipe import read_experiment, select
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.experiments.run import run_experiment
from pomona.tuning.progress import Progress, shown


def experiment(
    recipe: Path | str,
    output: Path | str | None = None,
    *,
    systems: Sequence[str] = (),
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (),
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExperimentRecord:
    """Run a recipe over systems, settings and seeds, each cell in its own folder; compare them in a table, a page and CSV.

    Args:
        recipe: the path of an experiment in YAML.
        output: the experiment's folder; `runs/<name>` by default.
        systems: run only the cells of these systems; of all where none are named.
        settings: and of these settings.
        seeds: and of these seeds.
        resume: continue with the experiment that stands there.
        engine: where cells run: `local` or `ray`.
        workers: number of cells that run at a time; see `pomona.runs.experiments.run.run_experiment`.
        progress: where progress is shown; by default below a notebook's cell or on the terminal, and nowhere else.

    Returns:
        What `experiment.json` holds; a cell that failed has its reason there.

    Raises:
        InputError: wrong input, found before anything is trained.
    """
    read, cells = read_experiment(recipe)
    chosen = select(cells, systems=systems, settings=settings, seeds=seeds)
    with shown(progress) as display:
        found = run_experiment(read, cells, output, chosen=chosen, resume=resume, progress=display, engine=engine, workers=workers)
    folder = Path("runs") / read.name if output is None else output
    NATIVE.on_main(lambda: write_experiment_report(folder))
    return found
