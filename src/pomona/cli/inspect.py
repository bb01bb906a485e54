"""`pomona inspect`: what is in an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a PEFT LoRA adapter.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show an adapter's modules: ranks, scaling, norms, sparsity, dtypes."""
    import json

    from pomona.adapters import read_adapter
    from pomona.adapters.measure import describe_adapter

    description = describe_adapter(read_adapter(adapter))
    if as_json:
        typer.echo(json.dumps(description))
    else:
        _print_table(str(adapter), description)


def _print_table(name: str, description: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    modules, total = description["modules"], description["total"]
    assert isinstance(modules, list)
    assert isinstance(total, dict)
    table = Table(title=f"{name} (base model: {description['base_model'] or 'not named'})", title_justify="left")
    table.add_column("module", overflow="fold")
    for heading in ("out x in", "rank", "scaling", "norm of delta", "zeros in A", "zeros in B", "dtype"):
        table.add_column(heading, justify="right")
    for one in modules:
        table.add_row(
            one["module"],
            f"{one['out_features']} x {one['in_features']}",
            str(one["rank"]),
            f"{one['scaling']:.4g}",
            f"{one['delta_norm']:.4g}",
            f"{one['sparsity_A']:.1%}",
            f"{one['sparsity_B']:.1%}",
            one["dtype"],
        )
    console = Console()
    console.print(table)
    figures = f"norm {total['delta_norm']:.4g}, zeros {total['sparsity']:.1%}"
    console.print(f"{total['modules']} modules, {total['parameters']:,} parameters, {figures}")
