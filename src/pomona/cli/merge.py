"""`pomona merge`: a static merge of adapters, without the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="Folders of PEFT LoRA adapters.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the merged adapter to.")],
    method: Annotated[str, typer.Option(help="Merge method; `pomona list` names them.")] = "svd",
    weights: Annotated[
        str | None,
        typer.Option(help="One number for each adapter, with commas between: 1,0.5. Default: 1 each.", metavar="W1,W2,..."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Largest rank of the result. Default: what the method does by itself.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of methods that draw at random.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter folder that stands at --output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")] = False,
) -> None:
    """Merge adapters into one, without the base model."""
    import json

    from pomona.adapters import read_adapter, write_adapter
    from pomona.merging import merge as merge_adapters

    merged = merge_adapters(
        [read_adapter(path) for path in adapters], method, None if weights is None else _numbers(weights), rank, seed
    )
    write_adapter(merged, output, force=force)
    warnings = merged.provenance["warnings"]
    assert isinstance(warnings, list)
    ranks = sorted({merged[module].rank for module in merged})
    if as_json:
        done = {"output": str(output), "modules": len(merged), "rank": ranks[-1], "base_model": merged.base_model}
        typer.echo(json.dumps({**done, **{k: v for k, v in merged.provenance.items() if k != "rank"}}))
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{len(adapters)} adapters merged by {method}: {len(merged)} modules of rank {ranks[-1]}, in {output}")


def _numbers(text: str) -> list[float]:
    from pomona.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            "must be numbers with commas between", field="--weights", value=text, mend="Write --weights 1,0.5"
        ) from error
