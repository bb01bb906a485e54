"""`pomona init`: a first recipe, from options or from three questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def init(
    recipe: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    data: Annotated[
        str | None, typer.Option(help=".jsonl, .json, .csv, .tsv, .parquet, or hub:owner/name. Default: asked on a terminal.")
    ] = None,
    adapters: Annotated[
        list[str] | None, typer.Option("--adapter", "-a", help="A PEFT folder or hub:owner/name; may be repeated. Default: asked.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="`embedded`, a folder, or a hub id. Default: the base that the adapters name, or asked.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task; `pomona list` names them. Default: guessed from the columns.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="FIELD=COLUMN", help="--column document=abstract. Default: guessed.")
    ] = None,
) -> None:
    """Write a commented recipe for your data and adapters; task and columns are guessed from the first rows."""
    import sys

    from pomona.cli.values import columns_of
    from pomona.errors import InputError

    if recipe.exists():
        raise InputError("already exists", file=recipe, fix="Name a new file")
    given = columns_of(columns or ())
    asks = sys.stdin.isatty()
    for option, value in (("--data", data), ("--adapter", adapters)):
        if not value and not asks:
            raise InputError(
                "is needed where nobody can be asked", field=option, fix="Give it, or call `pomona init` in a terminal"
            )

    from pomona.api.init import init as write
    from pomona.api.init import named_base

    if not adapters:
        adapters = str(typer.prompt("Adapters to merge, folders or hub:owner/name, with spaces between")).split()
    if model is None and asks:
        model = str(typer.prompt("Base model: embedded, a folder, or a hub id", default=named_base(adapters) or "embedded"))
    if data is None:
        data = str(typer.prompt("Data: a .jsonl, .csv, .tsv, .json or .parquet file, or hub:owner/name"))
    done = write(recipe, data, adapters, model=model, task=task, columns=given)
    say(f"{done.examples} different examples; {done.guessed}; the model is {done.model}")
    say(f"recipe   {done.recipe}")
    say(f"next     pomona check {done.recipe}, then pomona adapt {done.recipe}")
