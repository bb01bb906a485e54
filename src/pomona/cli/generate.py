"""`pomona generate`: text from a model with an adapter, to see what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pomona.cli.say import say, say_answer


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="Texts to go on from; `-` reads one from standard input.")
    ],
    adapter: Annotated[Path | None, typer.Option("--adapter", "-a", help="A PEFT folder or hub:owner/name.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="`embedded`, a folder, or a hub id. Default: the base that the adapter names; embedded without one."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16, of the model.")] = "auto",
    chat: Annotated[bool, typer.Option("--chat", help="Each prompt is a user's message, in the model's chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: the system's message.")] = None,
    template_arguments: Annotated[
        list[str] | None,
        typer.Option("--template-argument", metavar="NAME=VALUE", help="With --chat: for its template: enable_thinking=false."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=2**20, help="Longest answer, in tokens.")] = 64,
    line: Annotated[bool, typer.Option("--line", help="Stop at the answer's first line end.")] = False,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends an answer; may be repeated.")] = None,
    decoding: Annotated[
        list[str] | None, typer.Option("--decode", metavar="KEY=VALUE", help="--decode num_beams=4, --decode temperature=0.7 ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a prompt.")] = False,
) -> None:
    """Go on from each prompt, with or without an adapter; greedily where nothing else is asked for."""
    import json
    import sys

    from pomona.api.generate import generate as run
    from pomona.cli.values import decoding_of, settings

    arguments = settings(template_arguments or (), "--template-argument", "enable_thinking=false")
    texts = [sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt for prompt in prompts]
    found = run(
        texts,
        adapter,
        model=model,
        device=device,
        dtype=dtype,
        chat=chat,
        system=system,
        template_arguments=arguments,
        max_new_tokens=max_new_tokens,
        line=line,
        stop=stop or (),
        decoding=decoding_of(decoding),
    )
    for warning in found.warnings:
        say(f"warning: {warning}", err=True)
    for text, answer, ended in zip(texts, found.texts, found.ended, strict=True):
        if as_json:
            told = {"prompt": text, "text": answer, "ended": ended, "warnings": list(found.warnings)}
            say(json.dumps(told, ensure_ascii=False))
        else:
            say_answer(answer or "")
