"""`pomona train-adapter`: a plain LoRA on one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def train_adapter(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML: model, data, task, lora, tuning.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder. Default: adapters/<the recipe's name>.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set examples=100.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="ADAPTER", help="Go on from this adapter, a PEFT folder or hub:owner/name, not from scratch."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter folder that stands at --output.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, data, model and adapter, print the plan; train and write nothing.")
    ] = False,
    trial: Annotated[bool, typer.Option(help="With --dry-run: try a step of the model, for time and memory.")] = True,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the result with its card to this repository of the hub.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as one JSON object.")] = False,
) -> None:
    """Train a plain LoRA on one task: a source or a target adapter."""
    from pomona.api.train_adapter import train_adapter as train
    from pomona.runs.read_recipe import read_recipe
    from pomona.runs.recipe import TrainRecipe
    from pomona.runs.train_adapter import plan_training
    from pomona.tuning.progress import Display

    read = read_recipe(recipe, TrainRecipe, overrides or [])
    folder = output or Path("adapters") / read.name
    if dry_run:
        from pomona.cli.dry_run import print_plan

        print_plan(lambda: plan_training(read, folder, force=force, start=start, trial=trial), str(recipe), as_json=as_json)
        return
    with Display() as display:
        adapter = train(read, folder, force=force, progress=display, start=start, push_to_hub=push_to_hub)
    say(f"{len(adapter)} modules, in {folder}")
