"""`pomona export`: an adapter for another program, or merged into its base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.adapters import Adapter


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
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")] = False,
) -> None:
    """Write an adapter for PEFT, vLLM or llama.cpp, or merge it into its base model."""
    import dataclasses
    import json

    from pomona.adapters import read_adapter
    from pomona.adapters.base_identity import identity_of_folder
    from pomona.adapters.export import check_target, compress, export_adapter, refuse_output
    from pomona.adapters.same_base import Base, base_warnings
    from pomona.cli.base import called, table_of
    from pomona.cli.values import dtype_of

    check_target(target)
    refuse_output(target, output.resolve(), force=force)
    written = None if dtype is None else dtype_of(dtype)
    read = read_adapter(adapter)
    found = _base(base, read, target)
    given, compression = (read, None) if rank is None else compress(read, rank)
    modules = None if found is None or not found.is_dir() else table_of(found, read.modules)
    done = export_adapter(given, target, output, base=found, modules=modules, dtype=written, force=force)
    warnings = [*done.warnings]
    if base is not None and found is not None:  # without --base the adapter's own is taken
        warnings += base_warnings([(str(adapter), read)], Base(called(base), identity_of_folder(found)))
    if as_json:
        shown = {"target": target, "output": str(output), "modules": done.modules, "rank": done.rank}
        lost = None if compression is None else dataclasses.asdict(compression)
        say(json.dumps({**shown, "compression": lost, **done.details, "use": done.use, "warnings": warnings}))
        return
    for warning in warnings:
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


def _base(given: str | None, adapter: Adapter, target: str) -> Path | None:
    """The base model's folder or file; None where it was not given and what the adapter names is not here."""
    from pomona.adapters.export import NEEDS_BASE
    from pomona.backbone.embedded import NAME
    from pomona.cli.base import base_path, find_base

    if given is not None:
        return base_path(given)
    name = adapter.base_model
    # Converting the embedded model takes a while, so not for what can do without.
    if name is None or (name in {NAME, "embedded"} and target not in NEEDS_BASE):
        return None
    found = find_base(name)
    return found if found is not None and (found / "config.json").is_file() else None
