"""`pomona recipes`: the complete recipes that come with the program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to print, as the list names it. Default: list all.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the recipe to this new file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List as one JSON object: name -> verb and description.")] = False,
) -> None:
    """List the recipes that come with the program; print one, or write it to a file."""
    import json

    from pomona.errors import InputError
    from pomona.recipes import packaged, read_packaged

    if name is None:
        if output is not None:
            raise InputError("writes one recipe, and none is named", field="--output", value=output, fix="Name a recipe")
        found = packaged()
        if as_json:
            typer.echo(json.dumps({one.name: {"verb": one.verb, "description": one.description} for one in found}, indent=2))
            return
        width = max(len(one.name) for one in found)
        for verb in dict.fromkeys(one.verb for one in found):
            typer.echo(f"for `pomona {verb}`:")
            for one in found:
                if one.verb == verb:
                    typer.echo(f"  {one.name:<{width}}  {one.description}")
        return
    text = read_packaged(name)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError("exists already", field="--output", value=output, fix="Name a new file") from error
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", field="--output", value=output) from error
    say(output)
