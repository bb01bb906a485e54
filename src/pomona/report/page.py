"""Write a run's page: one HTML file that needs no network and no scripts."""

from __future__ import annotations

from pathlib import Path

from pomona.folder_lock import is_locked
from pomona.report import input_tables, pruning_tables, questions, tables
from pomona.report.answers_table import alarms, answers_table, own_alarm
from pomona.report.examples import shown_examples
from pomona.report.figures import all_figures, even_sparsity
from pomona.report.html_file import fill, write_page
from pomona.report.pool_table import pool_table
from pomona.report.read import RunFolder, read_run
from pomona.report.sentences import three_sentences
from pomona.report.tuned_table import tuned_table
from pomona.report.wording import moment, task_label

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
    return write_page(run.path, render(run))


def render(run: RunFolder, *, reload_seconds: float = 0) -> str:
    """The page as one HTML text; the same run gives the same text.

    Args:
        run: finished or not.
        reload_seconds: after which the page loads itself again, while it is watched; 0: never.
    """
    import yaml

    record = run.record
    return fill(
        "page.html.j2",
        reload_seconds=reload_seconds,
        record=record,
        task=task_label(record.task),
        status="stopped" if record.status == "running" and not is_locked(run.path) else _STATUS[record.status],
        started=moment(record.started),
        how_sure=questions.how_sure(record),
        against_what=questions.against_what(record),
        from_where=questions.from_where(record),
        which_source_helped=questions.which_source_helped(record),
        on_what=questions.on_what(record),
        what_it_cost=questions.what_it_cost(record),
        what_next=questions.what_next(record),
        how_to_load=questions.how_to_load(record),
        how_to_repeat=questions.how_to_repeat(record),
        repeat=questions.REPEAT,
        what_may_be_wrong=questions.what_may_be_wrong(record, run.notes),
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
        figures=all_figures(run),
        examples=shown_examples(run),
        example_count=len(run.predictions),
    )
