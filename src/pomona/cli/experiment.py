"""`pomona experiment`: systems x settings x seeds, and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def experiment(
    recipe: Annotated[Path, typer.Argument(help="An experiment in YAML; `pomona recipes` has complete ones.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The experiment's folder. Default: runs/<the experiment's name>.")
    ] = None,
    systems: Annotated[str | None, typer.Option(metavar="A,B", help="Run the cells of these systems alone.")] = None,
    settings: Annotated[str | None, typer.Option(metavar="A,B", help="Run the cells of these settings alone.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1", help="Run the cells of these seeds alone.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an experiment: cells that are done stay, all others are run.")
    ] = False,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where the cells run: on this machine, or on a Ray cluster (RAY_ADDRESS).")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Run N cells at a time, each worker with its own model and share of the cores.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything that any cell names; list the cells.")] = False,
    trial: Annotated[bool, typer.Option(help="With --dry-run: try a step of each model, for time and memory.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a recipe over systems, settings and seeds, each cell in a folder of its own, and compare the systems in one table."""
    import json

    from pomona.cli.interrupted import resumable
    from pomona.engines import NATIVE
    from pomona.errors import InputError
    from pomona.report.experiment_page import write_experiment_report
    from pomona.runs.experiments.recipe import EXPERIMENT, TABLE, read_experiment, select
    from pomona.runs.experiments.run import prepare_cells, run_experiment, states
    from pomona.runs.experiments.table import table
    from pomona.runs.experiments.workers import find_engine
    from pomona.runs.shared_work import SharedWork
    from pomona.tuning.progress import Display

    read, cells = read_experiment(recipe)
    chosen = select(cells, systems=_names(systems), settings=_names(settings), seeds=_numbers(seeds))
    folder = output or Path("runs") / read.name
    if dry_run:
        find_engine(engine, workers, folder)
        shared = SharedWork(test_seed=read.seeds[0])
        try:
            with Display() as display:
                plan = prepare_cells(chosen, folder, shared, display, trial=trial)
        except InputError as error:
            if as_json:
                say(json.dumps({"ok": False, "error": str(error)}))
            raise
        found = states(folder, chosen, shared)
        if as_json:
            say(json.dumps({"ok": True, "cells": found, "warnings": list(plan.warnings), "plan": plan.summary()}))
            return
        for path, state in found.items():
            say(f"{state:<12} {folder / path}")
        for warning in plan.warnings:
            say(f"warning: {warning}")
        for line in plan.lines():
            say(line)
        return
    with resumable(folder, EXPERIMENT, named=output is not None), Display() as display:
        result = run_experiment(read, cells, folder, chosen=chosen, resume=resume, progress=display, engine=engine, workers=workers)
    page = NATIVE.on_main(lambda: write_experiment_report(folder))
    paths = f"table    {folder / TABLE}\nreport   {page}"
    say(result.model_dump_json(indent=2) if as_json else f"{table(result)}\n{paths}", lines=True)
    asked = {cell.path for cell in chosen}
    lacking = [cell.path for cell in result.cells if cell.path in asked and cell.status != "done"]
    if lacking:
        say(f"error: {len(lacking)} of {len(chosen)} cells failed: {', '.join(lacking)}", err=True)
        raise typer.Exit(1)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text is not None else []


def _numbers(text: str | None) -> list[int]:
    from pomona.errors import InputError

    try:
        return [int(name) for name in _names(text)]
    except ValueError:
        raise InputError("whole numbers are expected", field="--seeds", value=text, fix="Write for example 0,1") from None
