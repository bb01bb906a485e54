"""`pomona check`: will these adapters, or this recipe, work? Each finding says why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    paths: Annotated[
        list[Path], typer.Argument(metavar="ADAPTER_OR_RECIPE...", help="Adapter folders, to be merged, and recipes.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check adapters (readable, finite, fit to be merged with each other) and recipes; exit 2 if anything is wrong."""
    import dataclasses
    import json

    from pomona.adapters.check import Finding, check_adapters

    recipes = [path for path in paths if path.suffix in {".yaml", ".yml"}]
    folders = [path for path in paths if path not in recipes]
    findings: list[Finding] = check_adapters(folders)
    for recipe in recipes:
        from pomona.runs.check import check_recipe

        findings.extend(check_recipe(recipe))
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [dataclasses.asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            about = finding.message if finding.message.startswith(finding.subject) else f"{finding.subject}: {finding.message}"
            typer.echo(f"{finding.level}: {about}")
    if failed:
        raise typer.Exit(2)
