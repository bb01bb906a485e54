"""`pomona schema`: the JSON schema of recipes, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from pomona.cli.say import say


def schema(
    verb: Annotated[str, typer.Argument(metavar="[VERB]", help="Whose recipes: adapt, train-adapter or experiment.")] = "adapt",
) -> None:
    """Print the JSON schema of recipes, with which an editor completes, explains and checks the keys.

    `pomona init` writes it beside the recipe, whose first line names it.
    """
    import json

    from pomona.api.schema import schema as made

    say(json.dumps(made(verb), indent=2, ensure_ascii=False), lines=True)
