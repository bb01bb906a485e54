"""`pomona check`: will these adapters, or this recipe, work? Each finding says why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.runs.base_plan import Plan


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

    from pomona.errors import InputError

    recipes = [path for path in paths if path.suffix in {".yaml", ".yml"}]
    folders = [path for path in paths if path not in recipes]
    if not folders and (base is not None or targets):
        option = "--base" if base is not None else "--for"
        raise InputError("is about adapters, and only recipes are given", field=option, fix="Leave it out, or give adapters too")
    from pomona.adapters.check import Finding, check_adapters
    from pomona.cli.base import called, find_base, table_of

    findings: list[Finding] = []
    if folders:
        found = None if base is None else find_base(base) or Path(base)
        name = None if base is None else called(base)
        findings = check_adapters(folders, found, targets or (), None if found is None else table_of, name)
    plans: dict[str, Plan] = {}
    for recipe in recipes:
        from pomona.runs.plan_file import plan_file

        try:
            plan = plans[str(recipe)] = plan_file(recipe, trial=trial)
            findings.extend(plan.findings(str(recipe)))
        except InputError as error:
            findings.append(Finding("error", str(recipe), str(error)))
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        told = {"ok": not failed, "findings": [dataclasses.asdict(finding) for finding in findings]}
        say(json.dumps(told | ({"plans": {name: plan.summary() for name, plan in plans.items()}} if recipes else {})))
    else:
        for finding in findings:
            about = finding.message if finding.message.startswith(finding.subject) else f"{finding.subject}: {finding.message}"
            say(f"{finding.level}: {about}")
        for name, plan in plans.items():
            say("\n".join([f"\nplan of {name}", *plan.lines()]), lines=True)
    if failed:
        raise typer.Exit(2)
