"""`pomona list`: everything that is registered, with its hyperparameters."""

from __future__ import annotations

import typing
from typing import Annotated

import typer


def list_registered(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List merge methods, importance metrics, controllers, tasks, metrics and baselines."""
    import dataclasses
    import json

    from pomona.control import controllers
    from pomona.data.tasks import tasks
    from pomona.evaluation.baselines import baselines
    from pomona.importance import importance_metrics
    from pomona.merging import merge_methods
    from pomona.metrics import metrics

    registries: typing.Sequence[typing.Any] = (merge_methods, importance_metrics, controllers, tasks, metrics, baselines)
    found = {
        registry.kind: {
            name: {
                "description": registry.describe(name),
                "parameters": {
                    key: None if default is dataclasses.MISSING else default for key, default in registry.parameters(name).items()
                },
            }
            for name in registry
        }
        for registry in registries
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for kind, entries in found.items():
        typer.echo(f"{kind}:")
        for name, entry in entries.items():
            typer.echo(f"  {name:<20}{entry['description']}")
