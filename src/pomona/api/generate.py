"""Text from a model with or without an adapter, to see what the adapter does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pomona.errors import InputError, spoken

if TYPE_CHECKING:
    from pomona.adapters import Adapter
    from pomona.backbone.decoding import Decoding


@dataclass(frozen=True)
class Generation:
    """Answers in the order of the prompts.

    Args:
        texts: the answers; None for a prompt without one.
        ended: whether the answer ended by itself, not at `max_new_tokens`; None without an answer.
        warnings: one sentence each.
    """

    texts: tuple[str | None, ...]
    ended: tuple[bool | None, ...]
    warnings: tuple[str, ...] = ()


def generate(
    prompts: Sequence[str] | str,
    adapter: Adapter | Path | str | None = None,
    *,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    chat: bool = False,
    system: str | None = None,
    template_arguments: Mapping[str, bool | int | float | str | None] | None = None,
    max_new_tokens: int = 64,
    line: bool = False,
    stop: Sequence[str] = (),
    decoding: Decoding | None = None,
) -> Generation:
    """Go on from each prompt; greedily where `decoding` says nothing else.

    Args:
        prompts: one text or several.
        adapter: an adapter, its folder, or `hub:owner/name`; None: the bare model.
        model: `embedded`, a folder, or a hub id; by default the base that the adapter names, embedded without one.
        device: where the model lives: auto, cpu, cuda, cuda:1 ...
        dtype: its precision: float32, bfloat16 or float16.
        chat: each prompt is a user's message, in the model's chat template.
        system: the system's message, with `chat`.
        template_arguments: of the chat template: `{"enable_thinking": False}`.
        max_new_tokens: longest answer, >= 1.
        line: stop at the answer's first line end.
        stop: texts that end an answer.
        decoding: beams, sampling; greedy by default.

    Raises:
        InputError: an adapter or model that cannot be read, or arguments that do not fit together.
    """
    if system is not None and not chat:
        raise InputError("only a conversation has a system's message", field="--system", value=system, fix="Give --chat too")
    if any(not text for text in stop):
        raise InputError("an empty text ends nothing", field="--stop", value="")
    from pomona.adapters import check_finite, read_adapter
    from pomona.backbone.attach import attached
    from pomona.backbone.chat_template import template_warnings
    from pomona.backbone.generate import generate as run
    from pomona.backbone.load import load_backbone
    from pomona.backbone.prompts import prompt_tokens
    from pomona.data import Example, Turn
    from pomona.data.tasks.template_arguments import check_template_arguments
    from pomona.runs.adapters_base import meeting_warnings, model_for

    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    arguments = dict(template_arguments or {})
    check_template_arguments(arguments, "chat" if chat else "base")
    given = read_adapter(adapter) if isinstance(adapter, str | Path) else adapter
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
    with contextlib.ExitStack() as stack:
        if given is not None:
            stack.enter_context(stack.enter_context(attached(backbone, [given])).folded())
        answers = run(
            backbone,
            [prompt.tokens for prompt in encoded],
            max_new_tokens=max_new_tokens,
            batch_size=8,
            stop_at_line_end=line,
            stop=stop,
            decoding=decoding,
        )
    return Generation(
        tuple(None if answer is None else answer.text for answer in answers),
        tuple(None if answer is None else answer.ended for answer in answers),
        tuple(spoken(one) for one in warnings),
    )
