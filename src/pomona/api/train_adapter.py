"""Train one plain LoRA."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pomona.adapters import Adapter
from pomona.adapters.push import check_push
from pomona.api.cards import write_card
from pomona.api.given import recipe_of
from pomona.engines import NATIVE
from pomona.runs.recipe import TrainRecipe
from pomona.runs.train_adapter import train_adapter as train
from pomona.tuning.progress import Progress, shown


def train_adapter(
    recipe: TrainRecipe | Path | str,
    output: Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    start: Path | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    push_to_hub: str | None = None,
) -> Adapter:
    """Train a plain LoRA on one task, and write it as a PEFT folder.

    Args:
        recipe: model, data, shape and training; or the path of a YAML file with them.
        output: the folder; `adapters/<name>` by default.
        overrides: of a file's values: `examples=100`.
        start: an adapter to continue from, a folder or `hub:owner/name`: its modules, ranks and scaling are kept, and the recipe
            must have no `lora`.
        force: replace an adapter that stands there.
        progress: where progress is shown; by default below a notebook's cell or on the terminal, and nowhere else.
        push_to_hub: `OWNER/NAME`, a repository of the hub to which the adapter with its card is uploaded.

    Returns:
        The adapter, read from its folder.

    Raises:
        InputError: wrong input, found before training begins.
    """
    read = recipe_of(recipe, TrainRecipe, overrides)
    folder = Path(output) if output is not None else Path("adapters") / read.name
    if push_to_hub is not None:
        check_push(push_to_hub)
    with shown(progress) as display:
        adapter = train(read, folder, force=force, progress=display, start=start)
    if NATIVE.is_main:
        began = "" if start is None else f", from {start}"
        made = f"A plain LoRA, trained by `pomona train-adapter`{began}."
        content = json.loads(read.model_dump_json())
        sources = [] if start is None else [str(start)]
        write_card(adapter, folder, made, sources=sources, recipe=content, push_to_hub=push_to_hub)
    return adapter
