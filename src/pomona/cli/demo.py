"""`pomona demo`: the main job on the embedded model and text, start to report, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder. Default: the next free runs/demo.")] = None,
    model: Annotated[str | None, typer.Option(help="A model of your own: a folder or a hub id.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set seed=1.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the demo at --output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as one JSON object.")] = False,
) -> None:
    """Run the main job on what comes with the installation, in a few minutes on two cores."""
    from pomona.cli.running import run_and_report
    from pomona.runs.demo import demo_recipe

    changes = [*(overrides or []), *([f"model={model}"] if model else [])]
    folder = output or _free_folder(resume)
    run_and_report(demo_recipe(changes), folder, named=output is not None, resume=resume, as_json=as_json)


def _free_folder(resume: bool) -> Path:
    """`runs/demo`, or the first of `runs/demo-2`, `runs/demo-3`, ... that is free; to resume, the last one that is not."""
    folder, number = Path("runs/demo"), 1
    taken = folder
    while folder.exists():
        number += 1
        taken, folder = folder, Path(f"runs/demo-{number}")
    return taken if resume else folder
