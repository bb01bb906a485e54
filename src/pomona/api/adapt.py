"""The main job with its report: a recipe in, a run folder out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pomona.adapters.push import check_push, push
from pomona.api.given import recipe_of
from pomona.engines import NATIVE
from pomona.report import model_card, read_run, write_report
from pomona.runs.adapt import adapt as run
from pomona.runs.callbacks import Callback, Callbacks, scores
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord
from pomona.runs.trackers import trackers
from pomona.tuning.progress import Progress, shown
from pomona.whole_files import write_whole


def adapt(
    recipe: Recipe | Path | str,
    output: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    push_to_hub: str | None = None,
) -> RunRecord:
    """Merge the sources, fine-tune and prune the merge, learn the prune ratio, evaluate, report.

    Everything that can be wrong with the input is found before anything is trained or written. The run folder holds `report.html`,
    `record.json`, and the adapter with its model card. An interrupted run continues with `resume` and ends as it would have ended.

    Args:
        recipe: a recipe, or the path of a YAML file.
        output: the run folder; `runs/<name>` by default. It must not hold another run.
        overrides: of a file's values: `tuning.epochs=2`.
        resume: continue with the run that stands there.
        progress: where progress is shown; by default below a notebook's cell or on the terminal, and nowhere else.
        callbacks: hear of each step, epoch, round and score, besides the trackers of `report_to`; see `pomona.runs.callbacks`.
        push_to_hub: `OWNER/NAME`, a repository of the hub to which the adapter with its card is uploaded.

    Returns:
        The record, as `record.json` holds it. In a notebook it is a table; `record.to_pandas()` has systems, rounds and history.

    Raises:
        InputError: wrong input.
        PomonaError: training failed; the record says so.
    """
    read = recipe_of(recipe, Recipe, overrides)
    folder = Path(output) if output is not None else Path("runs") / read.name
    if push_to_hub is not None:
        check_push(push_to_hub)
    with shown(progress) as display:
        listener = Callbacks([*trackers(read.report_to), *callbacks], display.warn)
        status = "failed"
        try:
            record = run(read, folder, resume=resume, progress=display, listener=listener)
            if not NATIVE.is_main:
                return record
            for event in scores(record):
                listener.on_event(event)
            page = write_report(folder)
            write_whole(folder / "adapter" / "README.md", _card(record, folder))
            listener.on_event({"kind": "report", "path": str(page)})
            status = record.status
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            if NATIVE.is_main:
                listener.on_event({"kind": "end", "status": status})
    if push_to_hub is not None:
        push(folder / "adapter", push_to_hub)
    return record


def _card(record: RunRecord, folder: Path) -> str:
    """The card of the run's adapter, with the first test example."""
    return model_card(record, next(iter(read_run(folder).predictions), None))
