"""`pomona check`: will these adapters, or this recipe, work? Each finding says why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="ADAPTER_OR_RECIPE...", help="Adapter folders or hub:owner/name, to be merged, and recipes."),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The base model: compare modules and shapes. A folder, `embedded`, or a hub id that is in the local cache; "
            "for llama.cpp also a GGUF file.",
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="PROGRAM",
            help="peft, vllm or llama.cpp, and again for more: it is an error if it would not load them. Default: warn about each.",
        ),
    ] = None,
    trial: Annotated[bool, typer.Option(help="Of a recipe: try a step of the model, for time and memory.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check adapters (readable, finite, fit to be merged, for the base, for other programs) and recipes; exit 2 if not.

    Adapters are read whole, and of the base only the headers of its files. A recipe's model is loaded, and its plan is printed.
    """
    import dataclasses
    import json

    from pomona.api.check import check as run

    found = run(*paths, base=base, targets=targets or (), trial=trial)
    if as_json:
        told = {"ok": found.ok, "findings": [dataclasses.asdict(finding) for finding in found.findings]}
        recipes = any(path.suffix in {".yaml", ".yml"} for path in paths)
        say(json.dumps(told | ({"plans": {name: plan.summary() for name, plan in found.plans.items()}} if recipes else {})))
    else:
        for finding in found.findings:
            about = finding.message if finding.message.startswith(finding.subject) else f"{finding.subject}: {finding.message}"
            say(f"{finding.level}: {about}")
        for name, plan in found.plans.items():
            say("\n".join([f"\nplan of {name}", *plan.lines()]), lines=True)
    if not found.ok:
        raise typer.Exit(2)
