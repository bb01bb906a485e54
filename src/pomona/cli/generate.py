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
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16, of the model.")] = "float32",
    chat: Annotated[bool, typer.Option("--chat", help="Each prompt is a user's message, in the model's chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: the system's message.")] = None,
    template_arguments: Annotated[
        list[str] | None,
        typer.Option("--template-argument", metavar="NAME=VALUE", help="With --chat: for its template: enable_thinking=false."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    line: Annotated[bool, typer.Option("--line", help="Stop at the answer's first line end.")] = False,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends an answer; may be repeated.")] = None,
    decoding: Annotated[
        list[str] | None, typer.Option("--decode", metavar="KEY=VALUE", help="--decode num_beams=4, --decode temperature=0.7 ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a prompt.")] = False,
) -> None:
    """Go on from each prompt, with or without an adapter; greedily where nothing else is asked for."""
    import contextlib
    import json
    import sys

    from pomona.errors import InputError

    if system is not None and not chat:
        raise InputError("only a conversation has a system's message", field="--system", value=system, fix="Give --chat too")
    if any(not text for text in stop or ()):
        raise InputError("an empty text ends nothing", field="--stop", value="")

    from pomona.adapters import check_finite, read_adapter
    from pomona.backbone.attach import attached
    from pomona.backbone.chat_template import template_warnings
    from pomona.backbone.generate import generate as run
    from pomona.backbone.load import load_backbone
    from pomona.backbone.prompts import prompt_tokens
    from pomona.cli.values import decoding_of, settings
    from pomona.data import Example, Turn
    from pomona.data.tasks.template_arguments import check_template_arguments
    from pomona.runs.adapters_base import meeting_warnings, model_for

    chosen = decoding_of(decoding)
    arguments = settings(template_arguments or (), "--template-argument", "enable_thinking=false")
    check_template_arguments(arguments, "chat" if chat else "base")
    texts = [sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt for prompt in prompts]
    given = read_adapter(adapter) if adapter else None
    if given is not None:
        check_finite(given)
    adapters = [] if given is None else [given]
    backbone = load_backbone(model_for(adapters, model), device, dtype)
    warnings = [*backbone.warnings, *meeting_warnings(adapters, backbone)]
    history = ((Turn("system", system),) if system is not None else ()) if chat else None
    room = (backbone.context_tokens or sys.maxsize) - max_new_tokens
    if room < 1:
        raise InputError("leaves no room for a prompt in the model's context", field="--max-new-tokens", value=max_new_tokens)
    given_to_template = tuple(sorted(arguments.items()))
    examples = [
        Example(f"prompt {number}", text, "", (), "", history=history, template_arguments=given_to_template)
        for number, text in enumerate(texts, start=1)
    ]
    encoded = [prompt_tokens(backbone.tokenizer, example, room) for example in examples]
    warnings += template_warnings(backbone.tokenizer, examples)
    if lost := [prompt.cut for prompt in encoded if prompt.cut]:
        warnings.append(
            f"too long for the model's context beside --max-new-tokens {max_new_tokens}, and cut at the beginning: "
            f"{len(lost)} of {len(encoded)} prompts, by {sum(lost)} tokens in all"
        )
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    with contextlib.ExitStack() as stack:
        if given is not None:
            stack.enter_context(stack.enter_context(attached(backbone, [given])).folded())
        answers = run(
            backbone,
            [prompt.tokens for prompt in encoded],
            max_new_tokens=max_new_tokens,
            batch_size=8,
            stop_at_line_end=line,
            stop=stop or (),
            decoding=chosen,
        )
    for text, answer in zip(texts, answers, strict=True):
        if as_json:
            found = {"prompt": text, "text": answer and answer.text, "ended": answer and answer.ended, "warnings": warnings}
            say(json.dumps(found, ensure_ascii=False))
        else:
            say_answer(answer.text if answer else "")
