"""`pomona adapt`: the main job, from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def adapt(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML; `pomona recipes` has complete ones.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder. Default: runs/<the recipe's name>.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set tuning.epochs=2.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, data, model and adapters, print the plan; train and write nothing.")
    ] = False,
    trial: Annotated[bool, typer.Option(help="With --dry-run: try a step of the model, for time and memory.")] = True,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the result with its card to this repository of the hub.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record, or what --dry-run found, as one JSON object.")] = False,
) -> None:
    """Merge the sources, fine-tune and prune the merge, learn the prune ratio, evaluate, report."""
    from pomona.runs.read_recipe import read_recipe
    from pomona.runs.recipe import Recipe

    read = read_recipe(recipe, Recipe, overrides or [])
    folder = output or Path("runs") / read.name
    if dry_run:
        from pomona.cli.dry_run import print_plan
        from pomona.runs.adapt import plan_run

        print_plan(lambda: plan_run(read, folder, resume=resume, trial=trial), str(recipe), as_json=as_json)
        return
    from pomona.cli.running import run_and_report

    run_and_report(read, folder, named=output is not None, resume=resume, as_json=as_json, push_to_hub=push_to_hub)
