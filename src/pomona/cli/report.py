"""`pomona report RUN...`: write each run's page again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, finished or not.", show_default=False)],
) -> None:
    """Write report.html into each run folder, and print the pages' paths."""
    from pomona.report import write_report

    for run in runs:
        say(write_report(run))
