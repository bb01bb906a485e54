"""`pomona export`: an adapter for another program, or merged into its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def export(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a PEFT LoRA adapter, or hub:owner/name.")],
    target: Annotated[
        str, typer.Option("--for", metavar="TARGET", help="peft, vllm, llama.cpp, or merged: the base model with the update added.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; for llama.cpp, the GGUF file.")],
    rank: Annotated[
        int | None, typer.Option(min=1, help="Compress every module to at most this rank, and say what that loses.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model, which merged and llama.cpp need: a folder, `embedded`, or for llama.cpp a GGUF file. "
            "Default: what the adapter names, if that is here."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16 or float16: what to write. Not for merged, which keeps the base's.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an output of the same kind that stands at --output.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the result with its card to this repository of the hub.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")] = False,
) -> None:
    """Write an adapter for PEFT, vLLM or llama.cpp, or merge it into its base model."""
    import dataclasses
    import json

    from pomona.api.export import export as run

    found = run(adapter, target, output, rank=rank, base=base, dtype=dtype, force=force, push_to_hub=push_to_hub)
    done, compression = found.export, found.compression
    if as_json:
        shown = {"target": target, "output": str(output), "modules": done.modules, "rank": done.rank}
        lost = None if compression is None else dataclasses.asdict(compression)
        told = {**shown, "compression": lost, **done.details, "use": done.use, "warnings": list(found.warnings)}
        say(json.dumps(told))
        return
    for warning in found.warnings:
        say(f"warning: {warning}", err=True)
    say(f"{done.modules} modules of rank {done.rank} for {target}, in {output}")
    if compression is not None:
        worst = f"at worst {_percent(compression.worst_error)}, at {compression.worst_module}"
        say(f"Compressing to rank {compression.rank} lost {_percent(compression.error)} of the update; {worst}")
    rounding = done.details.get("rounding")
    if isinstance(rounding, dict):
        worst = f"at worst {_percent(rounding['worst_error'])}, at {rounding['worst_module']}"
        say(f"Rounding to the base's dtype lost {_percent(rounding['error'])} of the update; {worst}")
    say(done.use, lines=True)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
