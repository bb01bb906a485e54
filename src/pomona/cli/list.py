"""`pomona list`: everything that is registered, with its hyperparameters."""

from __future__ import annotations

from typing import Annotated

import typer

from pomona.cli.say import say


def list_registered(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List merge methods, trainable merges, importance metrics, controllers, tasks, metrics and baselines."""
    import json

    from pomona.cli.registered import plain, registered

    found = registered()
    say(json.dumps(found, indent=2) if as_json else plain(found), lines=True)
