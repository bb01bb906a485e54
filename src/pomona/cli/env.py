"""`pomona env`: what is installed, for bug reports."""

from __future__ import annotations

from typing import Annotated

import typer

from pomona.cli.say import say


def env(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions, devices and the cache folder."""
    import json

    from pomona.backbone.embedded import cache_folder
    from pomona.runs.environment import environment

    found = {**environment(), "cache": str(cache_folder())}
    if as_json:
        say(json.dumps(found, indent=2), lines=True)
        return
    for key, value in found.items():
        shown = ", ".join(f"{name} {version}" for name, version in value.items()) if isinstance(value, dict) else value
        say(f"{key:<13} {shown}")
