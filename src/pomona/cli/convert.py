"""`pomona convert`: a plain LoRA folder from what an adapter or a fine-tuned model is stored as."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.adapters.base_modules import BaseModules
    from pomona.adapters.convert import Conversion

_SHOWN = 5


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="A folder or tensor file of an adapter (PEFT, also .bin and DoRA; mlx-lm), or a fine-tuned model."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    to: Annotated[str, typer.Option(help="What to write: lora.")] = "lora",
    rank: Annotated[
        int | None, typer.Option(min=1, help="The largest rank of a module. Needed for DoRA and whole models.", show_default=False)
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            help="The least rank that loses at most this share of each module's update, such as 0.05.", show_default=False
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The base model: a folder or `embedded`; of an exact conversion, a name will do. Default: what the adapter names, "
            "if that is here."
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a fine-tuned model, leave out changes of `other` (norms, biases, whatever is no linear map), `embeddings` or "
            "`head`. May be given several times.",
            show_default=False,
        ),
    ] = None,
    scaling: Annotated[
        float | None,
        typer.Option(help="Of an mlx-lm adapter whose config does not say it beyond doubt.", show_default=False),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16: what to write.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an adapter that stands at --output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as one JSON object.")] = False,
) -> None:
    """Make a plain LoRA folder of a pickle, an mlx-lm adapter, a DoRA, or a fine-tuned model.

    Pickles (.bin) and mlx-lm adapters are converted exactly. DoRA and fine-tuned models are approximated: their difference from
    --base is factored to --rank, and the error is said.
    """
    import dataclasses
    import json

    from pomona.adapters.convert import convert as make
    from pomona.api.dtype import dtype_of
    from pomona.errors import InputError

    if to != "lora":
        raise InputError("cannot be made", field="--to", value=to, fix="Known: lora")
    written = None if dtype is None else dtype_of(dtype)
    folder, name, modules = _base(source, base)
    done = make(
        source,
        output,
        rank=rank,
        max_error=max_error,
        base=folder,
        base_name=name,
        modules=modules,
        scaling=scaling,
        drop=drop or (),
        dtype=written,
        force=force,
    )
    if as_json:
        dropped = [{"name": one.name, "change": _finite(one.change)} for one in done.dropped]
        say(json.dumps({**dataclasses.asdict(done), "output": str(output), "dropped": dropped}))
        return
    _say(done, output, dtype)


def _say(done: Conversion, output: Path, dtype: str | None) -> None:
    for warning in done.warnings:
        say(f"warning: {warning}", err=True)
    if done.dropped:
        shown = ", ".join(f"{one.name} ({_change(one.change)})" for one in done.dropped[:_SHOWN])
        more = f" and {len(done.dropped) - _SHOWN} more" if len(done.dropped) > _SHOWN else ""
        say(f"warning: {len(done.dropped)} changed tensors are left out: {shown}{more}", err=True)
    modules = "1 module" if done.modules == 1 else f"{done.modules} modules"
    say(f"{done.kind}: {modules} of rank {'' if done.approximation is None else 'at most '}{done.rank}, in {output}")
    lost = done.approximation
    if lost is None:
        say("Every value is kept" if dtype in {None, "float32"} else f"Values are rounded to {dtype}")
    else:
        worst = f"at worst {_percent(lost.worst_error)}, at {lost.worst_module}"
        say(f"The factors lose {_percent(lost.error)} of the update; {worst}")


def _finite(share: float | None) -> float | None:
    """JSON has no infinity."""
    import math

    return None if share is None or math.isinf(share) else share


def _change(share: float | None) -> str:
    import math

    return "it differs" if share is None else "from zero" if math.isinf(share) else f"by {_percent(share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _base(source: Path, given: str | None) -> tuple[Path | None, str | None, BaseModules | None]:
    """The base model's folder where it is here; what to call it; and its modules."""
    from pomona.adapters.convert import find_source
    from pomona.adapters.convert.mlx import is_mlx_full
    from pomona.api.base_model import called, find_base, is_hub_id, table_of
    from pomona.errors import InputError

    found = find_source(source)
    whole = found.kind == "model" or is_mlx_full(found.config)
    named = None if whole else found.config.get("base_model_name_or_path")
    name = given or (named if isinstance(named, str) else None)
    if name is None:
        return None, None, None
    folder = find_base(name)
    if folder is None or not (folder / "config.json").is_file():
        if given and (folder is not None or not is_hub_id(given)):
            problem = "no such model folder" if folder is None else "has no config.json, so it is no model folder"
            raise InputError(problem, field="--base", value=given, fix="Give an existing model folder, or `embedded`")
        return None, called(name), None
    return folder, called(name), table_of(folder, ())
