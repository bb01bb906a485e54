"""`pomona generate`: text from a model with an adapter, to see what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="Texts to go on from; `-` reads one from standard input.")
    ],
    adapter: Annotated[Path | None, typer.Option("--adapter", "-a", help="A PEFT folder.")] = None,
    model: Annotated[str, typer.Option(help="`embedded`, a folder, or a hub id.")] = "embedded",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    line: Annotated[bool, typer.Option("--line", help="Stop at the answer's first line end.")] = False,
) -> None:
    """Go on greedily from each prompt, with or without an adapter."""
    import contextlib
    import sys

    from pomona.adapters import check_finite, read_adapter
    from pomona.backbone.attach import attached
    from pomona.backbone.generate import generate as run
    from pomona.backbone.load import load_backbone

    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    given = read_adapter(adapter) if adapter else None
    if given is not None:
        check_finite(given)
    backbone = load_backbone(model, device)
    with contextlib.ExitStack() as stack:
        if given is not None:
            stack.enter_context(stack.enter_context(attached(backbone, [given])).folded())
        answers = run(backbone, texts, max_new_tokens=max_new_tokens, batch_size=8, stop_at_line_end=line)
    for answer in answers:
        typer.echo(answer)
