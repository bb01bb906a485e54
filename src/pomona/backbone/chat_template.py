"""The model's own chat template: what it writes before an answer, around it and after it, found by rendering answers of one letter.

Some templates put more between a prompt and its answer than they give when an answer is asked for: an empty `<think>` block, a
channel's header. Such a lead belongs to the prompt here, in training and in generation, so that both see the same text. It belongs
to the answer where the answer brings thoughts of its own, or where the template's arguments ask the model to think.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pomona.backbone.template_limit import EndlessTemplateError, limited
from pomona.data.example import Example, Turn
from pomona.data.tasks.thoughts import begins_with_thoughts, opens_thoughts
from pomona.errors import InputError, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = ("X", "Y")


@dataclass(frozen=True)
class Frame:
    """What a chat template writes around the answer of one conversation.

    Args:
        prompt: all that stands before the answer.
        lead: the end of the prompt that the template does not give when an answer is asked for; "" for most.
        opened: what the template gives when an answer is asked for.
        closing: what it writes after the answer.
    """

    prompt: str
    lead: str
    opened: str
    closing: str


def frame(tokenizer: PreTrainedTokenizerBase, example: Example) -> Frame:
    """What the template writes around the example's answer, whatever the answer is.

    Raises:
        InputError: there is no template; it refuses the conversation or an argument, leaves the answer out, or changes what stands
            before it.
    """
    turns = [*(example.history or ()), Turn("user", example.prompt)]
    opened = _apply(tokenizer, example, turns, opens_answer=True)
    one, other = (_apply(tokenizer, example, [*turns, Turn("assistant", letter)]) for letter in _LETTERS)
    shared = _shared_start(one, other)
    closing = _shared_start(one[::-1], other[::-1])[::-1]
    if not example.target and (one == other or not shared.startswith(opened)):
        return Frame(opened, "", opened, closing)  # an answer is asked for and none is given: nothing has to fit together
    if one == other:
        raise _unfit(example, "does not write the answer")
    if shared.startswith(opened):
        # White space at its end belongs to the word that follows it, as the tokenizers have it.
        lead = shared[len(opened) :].rstrip(" \t")
        if not lead.strip() or begins_with_thoughts(example.target) or (asks_to_think(example) and not opens_thoughts(opened)):
            lead = ""
        return Frame(opened + lead, lead, opened, closing)
    if shared.startswith(
        _apply(tokenizer, example, turns)
    ):  # asked for an answer, it opens thoughts; given one, it leaves them out
        return Frame(shared.rstrip(" \t"), "", opened, closing)
    raise _unfit(example, "changes what stands before an answer")


def answer_text(tokenizer: PreTrainedTokenizerBase, example: Example, before: str) -> str:
    """What the template writes from `before` on, the example's target and what closes it.

    Raises:
        InputError: with the target the template does not go on from `before`.
    """
    turns = [*(example.history or ()), Turn("user", example.prompt), Turn("assistant", example.target)]
    whole = _apply(tokenizer, example, turns)
    if not whole.startswith(before):
        raise _unfit(example, "changes what stands before an answer")
    return whole[len(before) :]


def asks_to_think(example: Example) -> bool:
    """Whether an argument of the template turns the model's thoughts on: `enable_thinking: true`, `thinking: true`."""
    return any("think" in name and value is True for name, value in example.template_arguments)


def template_warnings(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[str]:
    """What a user should know of how the template frames these examples, of which the first in the chat form is looked at.

    Raises:
        InputError: see `frame`.
    """
    example = next((one for one in examples if one.history is not None), None)
    if example is None:
        return []
    found = frame(tokenizer, example)
    warnings = []
    if found.lead:
        warnings.append(
            f"the model's chat template puts {found.lead!r} between a prompt and its answer: it counts as part of the prompt, in "
            "training and in generation"
        )
    elif not found.prompt.startswith(found.opened):
        given = found.opened[len(_shared_start(found.prompt, found.opened)) :]
        warnings.append(
            f"the model's chat template puts {given!r} before an answer that is asked for, and not before one that is given: it is "
            "left out, in training and in generation"
        )
    elif not begins_with_thoughts(example.target) and begins_with_thoughts(answer_text(tokenizer, example, found.prompt)):
        warnings.append(
            "the model's chat template puts thoughts before each answer, and template_arguments ask for them: they are trained on, "
            "and what follows them is scored"
        )
    if _depends_on_date(tokenizer, example):
        warnings.append(
            "the model's chat template writes today's date, so a run on another day has other prompts; fix it in "
            "task.template_arguments, if the template has an argument for it (many have date_string)"
        )
    return warnings


def _depends_on_date(tokenizer: PreTrainedTokenizerBase, example: Example) -> bool:
    """Whether the conversation differs on two days: `strftime_now` is all that a template can ask for the time."""
    turns = [*(example.history or ()), Turn("user", example.prompt)]
    days = [f"{{% macro strftime_now(pattern) %}}{day}{{% endmacro %}}" for day in ("1 Jan", "2 Feb")]
    texts = [_apply(tokenizer, example, turns, chat_template=day + tokenizer.get_chat_template()) for day in days]
    return texts[0] != texts[1]


def _shared_start(one: str, other: str) -> str:
    length = next(
        (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    return one[:length]


def _unfit(example: Example, problem: str) -> InputError:
    return InputError(
        f"example {example.id!r}: the model's chat template {problem}",
        field="form",
        value="chat",
        fix="Use the task's base form, or a model whose template only adds to a conversation",
    )


def _apply(
    tokenizer: PreTrainedTokenizerBase, example: Example, turns: list[Turn], *, opens_answer: bool = False, **more: Any
) -> str:
    """The conversation as the model's own template writes it."""
    if not tokenizer.chat_template:
        raise InputError(
            "the model has no chat template",
            field="form",
            value="chat",
            fix="Use the base form, or a model that was tuned to chat",
        )
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    arguments = dict(example.template_arguments)
    try:
        unknown = [name for name in arguments if not re.search(rf"\b{name}\b", tokenizer.get_chat_template())]
        if not unknown:
            with limited():
                return str(
                    tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens_answer, **arguments, **more)
                )
    except (EndlessTemplateError, MemoryError) as error:
        raise InputError(
            f"the model's chat template {error or 'takes more memory than there is'} for one conversation",
            field="form",
            value="chat",
            fix="Use the base form, or another model",
        ) from error
    except Exception as error:  # a template is a program of the model's publisher: it may raise what it likes
        raise InputError(
            f"the model's chat template refuses the conversation: {' '.join(str(error).split())}",
            field="form",
            value="chat",
            fix="Leave the system turn out, or let user and assistant take turns",
        ) from error
    raise InputError(
        "the model's chat template has no such argument",
        field="template_arguments",
        value=unknown[0],
        fix=_advice(tokenizer, unknown[0]),
    )


def _advice(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    from jinja2 import Environment, TemplateError, meta

    try:
        names = meta.find_undeclared_variables(
            Environment(extensions=["jinja2.ext.loopcontrols"]).parse(tokenizer.get_chat_template())
        )
    except TemplateError:  # its own tags, such as `generation`
        return "Leave it out"
    return suggest(name, names - {"messages", "add_generation_prompt", "raise_exception", "strftime_now", "namespace"})
