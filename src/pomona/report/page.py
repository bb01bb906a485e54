"""Write a run's page: one HTML file that needs no network; only its figures need scripts."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from pathlib import Path

from pomona.errors import InputError
from pomona.folder_lock import is_locked
from pomona.report import input_tables, pruning_tables, tables
from pomona.report.answers_table import alarms, answers_table, own_alarm
from pomona.report.examples import shown_examples
from pomona.report.figures import all_figures, even_sparsity
from pomona.report.pool_table import pool_table
from pomona.report.read import RunFolder, read_run
from pomona.report.sentences import three_sentences
from pomona.report.tuned_table import tuned_table
from pomona.report.wording import moment
from pomona.whole_files import write_whole

PAGE_NAME = "report.html"
_STATUS = {"done": "finished", "running": "not finished", "failed": "failed", "interrupted": "interrupted"}


def write_report(run_folder: Path | str) -> Path:
    """Write `report.html` into the run folder atomically.

    Args:
        run_folder: a run folder, finished or not.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be read (see `read_run`) or written.
    """
    run = read_run(run_folder)
    page = run.path / PAGE_NAME
    try:
        write_whole(page, render(run))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=page) from error
    return page


def render(run: RunFolder) -> str:
    """The page as one HTML text; the same run gives the same text."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    record = run.record
    figures = all_figures(run)
    return environment.get_template("page.html.j2").render(
        record=record,
        status="stopped" if record.status == "running" and not is_locked(run.path) else _STATUS[record.status],
        started=moment(record.started),
        notes=run.notes,
        own_alarm=own_alarm(record),
        sentences=three_sentences(record),
        tiles=tables.headline(record),
        descriptions=tables.descriptions_table(record),
        systems=tables.systems_table(record),
        tuned=tuned_table(record),
        primary_comparisons=tables.comparisons_table(record, primary=True),
        other_comparisons=tables.comparisons_table(record, primary=False),
        answers=answers_table(record),
        alarms=alarms(record),
        rounds=pruning_tables.rounds_table(record),
        groups=pruning_tables.groups_table(record),
        modules=pruning_tables.modules_table(record),
        even_sparsity=even_sparsity(record),
        sources=input_tables.sources_table(record),
        pool=pool_table(record),
        choices=input_tables.choices_table(record),
        splits=input_tables.splits_table(record),
        timing=input_tables.timing_table(record),
        environment=input_tables.facts_table(record.environment, "Environment"),
        fingerprints=input_tables.facts_table(record.fingerprints, "Fingerprint"),
        signatures=input_tables.signatures_table(record),
        recipe=yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True).strip(),
        figures=figures,
        examples=shown_examples(run),
        example_count=len(run.predictions),
        plotly=_packed_plotly() if any(figures.values()) else "",
    )


@cache
def _packed_plotly() -> str:
    """plotly.js, gzipped, in base64: 2 MB instead of 4.8. The page unpacks it with the browser's `DecompressionStream`."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
