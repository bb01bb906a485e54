"""`pomona train-adapter`: a plain LoRA on one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
) -> None:
    """Train a plain LoRA on one task: a source or a target adapter."""
    from pomona.runs.read_recipe import read_recipe
    from pomona.runs.recipe import TrainRecipe
    from pomona.runs.train_adapter import train_adapter as train
    from pomona.tuning.progress import Display

    read = read_recipe(recipe, TrainRecipe, overrides or [])
    folder = output or Path("adapters") / read.name
    with Display() as display:
        adapter = train(read, folder, force=force, progress=display, start=start)
    typer.echo(f"{len(adapter)} modules, in {folder}")
