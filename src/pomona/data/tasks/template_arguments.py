"""Arguments for a model's own chat template: the allowed names and values."""

from __future__ import annotations

from collections.abc import Mapping

from pomona.errors import InputError

# Parameters of transformers' `apply_chat_template`, and arguments that Pomona passes to it.
_TAKEN = frozenset(
    {
        *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
        *("return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "strftime_now", "raise_exception"),
    }
)

_WORDS = ("yes", "no", "on", "off")


def check_template_arguments(arguments: Mapping[str, object] | None, form: str) -> None:
    """Refuse invalid arguments of a chat template.

    Args:
        arguments: names and values; None: none.
        form: the task's form.

    Raises:
        InputError: the form is not `chat`, a name is invalid or reserved, or a value is not plain.
    """
    field = "template_arguments"
    if not arguments:
        return
    if form != "chat":
        raise InputError("are for the chat form only", field=field, value=dict(arguments), fix="Set form to chat")
    for name, value in arguments.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _TAKEN:
            raise InputError("not an allowed name of a template argument", field=field, value=name, fix="Leave it out")
        if isinstance(value, str) and value.lower() in _WORDS:
            raise InputError("a template treats any text as true", field=f"{field}.{name}", value=value, fix="Write true or false")
        if value is not None and not isinstance(value, bool | int | float | str):
            raise InputError(
                "true, false, a number or a text is expected", field=f"{field}.{name}", value=value, fix="Give one of these"
            )
