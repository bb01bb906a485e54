"""`pomona push`: to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say


def push(
    folder: Annotated[Path, typer.Argument(help="An adapter's folder, an exported model's folder, or a GGUF file.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made if it is not there.")],
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Of a new repository. Default: the owner's settings on the hub.")
    ] = None,
) -> None:
    """Upload an adapter or an exported model to the Hugging Face hub, with its card.

    The token is that of `hf auth login` or of HF_TOKEN; it is never printed or recorded.
    """
    from pomona.adapters.push import push as upload

    say(f"pushed   {upload(folder, repository, private=private)}")
