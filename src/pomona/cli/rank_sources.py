"""`pomona rank-sources`: which adapters suit the target's training examples best, before any of them is merged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.runs.record import PoolRecord


def rank_sources(
    recipe: Annotated[Path, typer.Argument(help="A recipe in YAML; its sources are the candidates.")],
    adapters: Annotated[
        Path | None,
        typer.Option("--adapters", metavar="FOLDER", help="Candidates in place of the sources: every adapter folder in it."),
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many to choose. Default: the recipe's pool.top, or all.")] = None,
    by: Annotated[str | None, typer.Option(help="loss or gradient. Default: the recipe's pool.by, or loss.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set splits.train=12.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Rank source adapters by their loss and by the gradient's agreement on the training examples, best first.

    Each adapter is tried alone on the recipe's model; nothing is trained but sources that the recipe itself trains.
    """
    from typing import get_args

    from pomona.errors import InputError
    from pomona.runs.best_sources import pool_of, rank_sources
    from pomona.runs.pool import By
    from pomona.runs.read_recipe import read_recipe
    from pomona.runs.recipe import Recipe
    from pomona.runs.shared_work import SharedWork
    from pomona.tuning.progress import Display

    if by is not None and by not in get_args(By):
        raise InputError("must be loss or gradient", field="--by", value=by)
    read = pool_of(read_recipe(recipe, Recipe, overrides or []), adapters)
    count = top if top is not None else read.pool.top if read.pool else len(read.sources)
    if not 1 <= count <= len(read.sources):
        raise InputError(f"there are {len(read.sources)} candidates", field="--top", value=count, fix="Give 1 or more, up to that")
    order: By = by or (read.pool.by if read.pool else "loss")  # pyright: ignore[reportAssignmentType] - checked above
    shared = SharedWork(test_seed=read.seed)
    with Display() as progress:
        for warning in shared.checked(read).warnings:
            progress.warn(warning)
        found = rank_sources(read, shared, order, count, progress)
    say(found.model_dump_json(indent=2) if as_json else _table(found), lines=True)


def _table(found: PoolRecord) -> str:
    """A row for each candidate; an asterisk marks what is chosen."""
    chosen = sum(one.chosen for one in found.candidates)
    marked = chosen < len(found.candidates)
    rows = [("", "source", "loss", "below the bare model", "agreement")]
    rows += [
        (
            "*" if one.chosen and marked else "",
            one.name,
            f"{one.loss:.4f}",
            f"{found.base_loss - one.loss:+.4f}",
            f"{one.agreement:+.4f}",
        )
        for one in found.candidates
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), *(row[i].rjust(widths[i]) for i in (2, 3, 4))]).rstrip()
        for row in rows
    ]
    note = f"best first by {found.by}; the bare model's loss is {found.base_loss:.4f} nats per token of the training completions"
    return "\n".join([*lines, note + (f"; * the best {chosen}" if marked else "")])
