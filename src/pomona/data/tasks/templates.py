"""Prompt templates: choose one by language, check it, and fill it safely with any document."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from pomona.errors import InputError
from pomona.metrics.text import primary_language

FALLBACK = "en"
"""The language whose template is used for every language without its own template."""


def prompt_language(templates: Mapping[str, str], language: str) -> str:
    """The language of the prompt for texts of `language`: the same if there is a template for it, else English.

    Args:
        templates: primary language -> template; English is always there.
        language: language tag; only its primary part counts.
    """
    primary = primary_language(language)
    return primary if primary in templates else FALLBACK


def check_template(template: str, names: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Refuse a prompt template that cannot be filled, or whose boundary with the completion would not be a token boundary.

    Args:
        template: text with one placeholder or more for each name, in the syntax of `str.format` (`{document}`; a literal brace
            is doubled).
        names: the placeholders that a template must have.
        optional: placeholders that it may have.

    Raises:
        InputError: not a text, unmatched braces, a missing or unknown placeholder, or whitespace at the end.
    """
    if not isinstance(template, str):
        raise InputError("a text is expected", field="template", value=template)
    wanted = " and ".join(f"{{{name}}}" for name in names)
    try:
        parts = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise InputError(
            f"a template with braces that do not match: {error}",
            field="template",
            value=template,
            fix=f"Write {wanted}; double any other brace",
        ) from error
    found = {name for name, _, _ in parts if name is not None}
    if not set(names) <= found <= {*names, *optional} or any(spec or conversion for _, spec, conversion in parts):
        allowed = f"; it may have {' and '.join(f'{{{name}}}' for name in optional)}" if optional else ""
        raise InputError(
            f"a template needs the placeholder{'s' if len(names) > 1 else ''} {wanted} and no other{allowed}",
            field="template",
            value=template,
            fix="Double any other brace",
        )
    if template != template.rstrip():
        raise InputError(
            "a template must not end in whitespace, because the completion begins with the space",
            field="template",
            value=template,
            fix="Remove it",
        )


def fill(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """The template with its placeholders filled, and the start of each name's first value in it.

    Args:
        template: one that `check_template` accepts.
        values: placeholder -> text; braces in the text are kept.
    """
    text: list[str] = []
    starts: dict[str, int] = {}
    length = 0
    for literal, name, _, _ in string.Formatter().parse(template):
        value = "" if name is None else values[name]
        if name is not None:
            starts.setdefault(name, length + len(literal))
        text += [literal, value]
        length += len(literal) + len(value)
    return "".join(text), starts
