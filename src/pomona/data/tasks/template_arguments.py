"""Arguments for a model's own chat template: which names and values a task may give."""

from __future__ import annotations

from collections.abc import Mapping

from pomona.errors import InputError

# What transformers' `apply_chat_template` itself takes, and what Pomona says to it.
_TAKEN = frozenset(
    {
        *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
        *("return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "strftime_now", "raise_exception"),
    }
)

_WORDS = ("yes", "no", "on", "off")


def check_template_arguments(arguments: Mapping[str, object] | None, form: str) -> None:
    """Refuse what a chat template cannot be given.

    Args:
        arguments: names and values; None: none.
        form: the task's.

    Raises:
        InputError: another form than `chat`, a name that is none or that is taken, a value that is no plain one.
    """
    field = "template_arguments"
    if not arguments:
        return
    if form != "chat":
        raise InputError("are for the chat form only", field=field, value=dict(arguments), fix="Set form to chat")
    for name, value in arguments.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _TAKEN:
            raise InputError("not a name that a template can be given", field=field, value=name, fix="Leave it out")
        if isinstance(value, str) and value.lower() in _WORDS:
            raise InputError("a template takes any text for true", field=f"{field}.{name}", value=value, fix="Write true or false")
        if value is not None and not isinstance(value, bool | int | float | str):
            raise InputError(
                "true, false, a number or a text is expected", field=f"{field}.{name}", value=value, fix="Give one of these"
            )
