"""`pomona evaluate`: scores of adapters, with intervals, on a recipe's test split or on any file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe: its model, task and test split are used.")] = None,
    adapters: Annotated[list[Path] | None, typer.Option("--adapter", "-a", help="A PEFT folder; may be repeated.")] = None,
    data: Annotated[Path | None, typer.Option(help="JSON lines to score on, in place of a recipe.")] = None,
    task: Annotated[str, typer.Option(help="With --data: the task; `pomona list` names them.")] = "summarization",
    language: Annotated[str, typer.Option(help="With --data: the text's language.")] = "en",
    model: Annotated[str, typer.Option(help="With --data: `embedded`, a folder, or a hub id.")] = "embedded",
    device: Annotated[str, typer.Option(help="With --data: auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples a batch. Default: the recipe's, or 20.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score the bare model and each adapter, with 95 % bootstrap intervals."""
    import json

    from pomona.data import examples, read_jsonl
    from pomona.data.tasks import tasks
    from pomona.errors import InputError

    if (recipe is None) == (data is None):
        raise InputError(
            "give either a recipe or --data", mend="For example: pomona evaluate --data test.jsonl --adapter runs/demo/adapter"
        )
    settings: dict[str, Any] = {}
    dtype = "float32"
    if recipe is not None:
        from pomona.runs.inputs import read_splits
        from pomona.runs.read_recipe import read_recipe
        from pomona.runs.recipe import Recipe

        read = read_recipe(recipe, Recipe)
        chosen, rows = read.task, read_splits(read).test
        model, device, dtype = read.model, read.device, read.dtype
        evaluation = read.evaluation
        settings = {"metrics": evaluation.metrics, "batch_size": evaluation.batch_size, "draws": evaluation.draws}
        settings |= {"seed": read.seed, "max_tokens": read.tuning.max_tokens}
    else:
        assert data is not None
        chosen = tasks.create(task, {"language": language})
        rows = examples(read_jsonl(data), chosen, data)

    from pomona.backbone.load import load_backbone
    from pomona.runs.evaluate import evaluate as run
    from pomona.tuning.progress import Display

    if batch_size is not None:
        settings["batch_size"] = batch_size
    with Display() as display:
        results = run(load_backbone(model, device, dtype), adapters or [], rows, chosen, **settings, progress=display)
    if as_json:
        found = {system: {name: one.model_dump() for name, one in scores.items()} for system, scores in results.items()}
        typer.echo(json.dumps(found, indent=2))
        return
    for system, scores in results.items():
        typer.echo(system)
        for name, one in scores.items():
            typer.echo(f"  {name:<14}{one.value:8.3f}  [{one.low:.3f}, {one.high:.3f}]  n = {one.n}")
