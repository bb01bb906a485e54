"""`pomona report FOLDER...`: write the page of each run or experiment again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of runs, finished or not, or of experiments.", show_default=False),
    ],
    watched: Annotated[
        bool, typer.Option("--watch", help="Follow a live run: write its page again when it moves on, until it ends.")
    ] = False,
) -> None:
    """Write report.html into each folder of a run or an experiment, and print the pages' paths."""
    from pomona.errors import InputError
    from pomona.report import write_report
    from pomona.report.experiment_page import is_experiment, write_experiment_report

    if watched:
        from pomona.report.watch import watch

        if len(runs) > 1 or is_experiment(runs[0]):
            raise InputError("one run is followed at a time", field="--watch", fix="Give the folder of one run")
        watch(runs[0], written=say)
        return
    for run in runs:
        say(write_experiment_report(run) if is_experiment(run) else write_report(run))
