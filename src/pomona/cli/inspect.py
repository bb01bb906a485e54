"""`pomona inspect`: what is in an adapter, and how alike several are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pomona.cli.say import say
from pomona.plain_text import visible

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH_OF_A_FILE = 160
_MOST_ROWS = 2000  # a table is laid out as a whole, at some thousand rows a second


def inspect(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="Folders of PEFT LoRA adapters, or hub:owner/name.")],
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object: of one adapter its figures; of several `adapters` and `pairs`."),
    ] = False,
) -> None:
    """Show an adapter's modules (ranks, scaling, norms, effective rank, sparsity, dtypes), or several adapters side by side.

    Components that are all zero, as padding to one rank is, are counted apart and are no part of the zeros.

    Several are compared in pairs: modules that both adapt, cosine of the deltas, overlap of the subspaces they read and write.
    """
    import json

    from pomona.adapters import read_adapter
    from pomona.adapters.measure import describe_adapter

    opened = [read_adapter(path) for path in adapters]
    described: list[dict[str, Any]] = [describe_adapter(adapter) for adapter in opened]
    if len(opened) == 1:
        if as_json:
            say(json.dumps(described[0]))
        else:
            _print_one(str(adapters[0]), described[0])
        return
    from pomona.adapters.overlap import compare_all

    named = [{"path": str(path), **figures} for path, figures in zip(adapters, described, strict=True)]
    pairs = compare_all(opened)
    if as_json:
        say(json.dumps({"adapters": named, "pairs": pairs}))
    else:
        _print_several(named, pairs)


def _print_one(name: str, described: dict[str, Any]) -> None:
    total = described["total"]
    table = _table(
        f"{name} (base model: {described['base_model'] or 'not named'})",
        ("module",),
        ("out x in", "rank", "scale", "norm", "eff. rank", "zeros A", "zeros B", "dtype"),
    )
    for one in described["modules"][:_MOST_ROWS]:
        table.add_row(
            visible(one["module"]),
            f"{one['out_features']} x {one['in_features']}",
            str(one["rank"]) + (f" ({one['padding']} padding)" if one["padding"] else ""),
            f"{one['scaling']:.4g}",
            f"{one['delta_norm']:.4g}",
            f"{one['effective_rank']:.2f}",
            f"{one['sparsity_A']:.1%}",
            f"{one['sparsity_B']:.1%}",
            _short(one["dtype"]),
        )
    _print(table)
    if (more := len(described["modules"]) - _MOST_ROWS) > 0:
        say(f"... and {more:,} more modules, which --json lists")
    spread = total["mean_effective_rank"]
    say(
        f"{total['modules']} modules, {total['parameters']:,} parameters{_padding(total)}, norm {total['delta_norm']:.4g}, "
        f"mean effective rank {_figure(spread)}, zeros {total['sparsity']:.1%}"
    )
    for one in described["whole"]:
        say(f"brings {one['parameter']} whole, {' x '.join(map(str, one['shape']))}")


def _print_several(adapters: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> None:
    table = _table(
        "Adapters",
        ("adapter", "base model"),
        ("modules", "entries", "rank", "norm", "eff. rank", "zeros", "dtype"),
    )
    for one in adapters:
        total = one["total"]
        lowest, highest = total["ranks"][0], total["ranks"][-1]
        table.add_row(
            visible(one["path"]),
            visible(one["base_model"] or "not named"),
            str(total["modules"]),
            f"{total['parameters'] / 1e6:.2f} M"
            + (f" ({total['padding'] / total['parameters']:.0%} padding)" if total["padding"] else ""),
            str(lowest) if lowest == highest else f"{lowest} to {highest}",
            f"{total['delta_norm']:.4g}",
            _figure(total["mean_effective_rank"]),
            f"{total['sparsity']:.1%}",
            _short("/".join(total["dtypes"])),
        )
    _print(table)
    table = _table(
        "Pairs",
        ("adapter", "and"),
        ("shared modules", "cosine", "cosine there", "input overlap", "output overlap"),
    )
    for pair in pairs:
        total = pair["total"]
        figures = ("cosine", "shared_cosine", "input_overlap", "output_overlap")
        table.add_row(
            visible(pair["first"]),
            visible(pair["second"]),
            str(total["shared_modules"]),
            *(_figure(total[name], 3) for name in figures),
        )
    _print(table)
    for pair in pairs:
        if pair["total"]["other_shape"]:
            say(
                f"{pair['first']} and {pair['second']}: {pair['total']['other_shape']} modules are of one name and two shapes, "
                "and were not compared"
            )


def _padding(total: dict[str, Any]) -> str:
    """Zeros that only bring modules to the rank of the others; they are no zeros of the adapter's own."""
    return f" ({total['padding']:,} of them padding to one rank)" if total["padding"] else ""


def _figure(value: float | None, places: int = 2) -> str:
    return "none" if value is None else f"{value:.{places}f}"


def _short(dtypes: str) -> str:
    return dtypes.replace("bfloat", "bf").replace("float", "fp")


def _table(title: str, names: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(title)), title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in names:
        table.add_column(heading, overflow="fold")
    for heading in figures:
        # Figures are never cut; where the terminal is narrow, names are folded.
        table.add_column(heading, justify="right", no_wrap=False, min_width=max(map(len, heading.split())))
    return table


def _print(table: Table) -> None:
    import os
    import sys

    from rich.console import Console

    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(markup=False, highlight=False, width=None if fixed else _WIDTH_OF_A_FILE).print(table)
