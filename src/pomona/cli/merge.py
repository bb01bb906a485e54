"""`pomona merge`: merge adapters without training and without the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="Folders of PEFT LoRA adapters, or hub:owner/name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the merged adapter to.")],
    method: Annotated[str, typer.Option(help="Merge method; `pomona list` names them.")] = "svd",
    weights: Annotated[
        str | None,
        typer.Option(
            help="One weight per adapter, separated by commas: 1,0.5. A weight may be a list over depth or entries by module: "
            "1,[0,1] or 1,[{filter: q_proj, value: 0.5}, {value: 1}]. `nan`: inverse to the norm of each adapter's update. "
            "Default: 1 each.",
            metavar="W1,W2,...",
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Largest rank of the result. Default: that of the method.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the method: density=0.3. May be repeated."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The base model, to check the adapters and to use its module names: a folder, `embedded`, or a hub id in "
            "the local cache. Default: none; the adapters are only checked against each other.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of methods with random draws.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: float32.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing adapter folder at --output.")] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the result with its card to this repository of the hub.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Merge adapters into one, without training and without the base model's weights."""
    import json
    from typing import get_args

    from pomona.adapters import read_adapter, refuse_occupied, write_adapter
    from pomona.adapters.export import fitted
    from pomona.adapters.push import check_push
    from pomona.api.base_model import base_path, table_of
    from pomona.api.cards import write_card
    from pomona.api.dtype import dtype_of
    from pomona.cli.values import settings, value_of
    from pomona.merging import WeightRule, check_weight, merge_methods
    from pomona.merging import merge as merge_adapters
    from pomona.merging.rank_loss import percent

    if push_to_hub is not None:
        check_push(push_to_hub)
    written = None if dtype is None else dtype_of(dtype)
    refuse_occupied(output.resolve(), force=force)
    by_rule = weights in get_args(WeightRule)
    given = None if weights is None or by_rule else value_of(f"[{weights}]", "--weights", "Write --weights 1,0.5")
    for place, weight in enumerate(given or ()):
        check_weight(weight, f"weights[{place}]")
    chosen = settings(parameters or [])
    merge_methods.create(method, chosen)  # fails early; `rank` and `seed` are options, not parameters
    read = [read_adapter(path) for path in adapters]
    if base is not None:
        folder = base_path(base)
        read = [fitted(adapter, folder, table_of(folder, adapter.modules)) for adapter in read]
    merged = merge_adapters(read, method, "nan" if by_rule else given, rank, seed, **chosen)
    write_adapter(merged, output, force=force, dtype=written)
    made = f"{len(adapters)} adapters, merged by the method {method} of Pomona."
    write_card(merged, output, made, sources=[str(one) for one in adapters], push_to_hub=push_to_hub)
    warnings = merged.provenance["warnings"]
    assert isinstance(warnings, list)
    lost = merged.provenance["rank_loss"]
    assert isinstance(lost, dict)
    ranks = sorted({merged[module].rank for module in merged})
    if as_json:
        done = {"output": str(output), "modules": len(merged), "rank": ranks[-1], "base_model": merged.base_model}
        say(json.dumps({**done, **{k: v for k, v in merged.provenance.items() if k != "rank"}}))
        return
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    say(f"{len(adapters)} adapters merged by {method}: {len(merged)} modules of rank {ranks[-1]}, in {output}")
    if lost["worst_module"] is None:
        say("Nothing is lost to the rank")
    else:
        worst = f"at worst {percent(lost['worst'])}, at {lost['worst_module']}"
        say(f"Keeping rank {ranks[-1]} lost {percent(lost['relative'])} of the merged update; {worst}")
