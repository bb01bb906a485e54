"""Reading the fields of a row and the templates of a prompt, with errors that say what was found and what is expected."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from pomona.errors import InputError


class FieldError(ValueError):
    """A row's field that cannot be used.

    Args:
        field: the field's name.
        problem: what was found and what is expected.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}")


def text_field(row: Mapping[str, object], field: str) -> str:
    """The row's text in `field`, stripped.

    Raises:
        FieldError: it is missing, not a string, or blank.
    """
    if field not in row:
        raise FieldError(field, f"is missing: a text is expected; the row has {', '.join(map(str, row)) or 'no fields'}")
    return _text(row[field], field)


def text_list_field(row: Mapping[str, object], field: str) -> tuple[str, ...]:
    """The row's texts in `field`, each stripped; repeated ones once, in the order in which they stand.

    Raises:
        FieldError: it is missing, not a list, empty, or an entry is not a string or is blank.
    """
    if field not in row:
        raise FieldError(field, f"is missing: a list of texts is expected; the row has {', '.join(map(str, row)) or 'no fields'}")
    value = row[field]
    if not isinstance(value, list | tuple) or not value:
        raise FieldError(field, f"is {_shown(value)}: a list of one or more texts is expected")
    return tuple(dict.fromkeys(_text(entry, f"{field}[{index}]") for index, entry in enumerate(value)))


def id_field(row: Mapping[str, object], default: str) -> str:
    """The row's own `id` as a string, or `default` where it has none.

    Raises:
        FieldError: the id is neither a string nor a whole number.
    """
    value = row.get("id", default)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise FieldError("id", f"is {_shown(value)}: a string or a whole number is expected")
    return str(value)


def one_line(text: str) -> str:
    """`text` with every run of whitespace made one space: an answer is one line, which is what a task's `parse` can return."""
    return " ".join(text.split())


def check_template(template: str, names: Sequence[str]) -> None:
    """Refuse a prompt template that could not be filled, or whose border with the completion would not be a token border.

    Args:
        template: text with one placeholder or more for each name, in the syntax of `str.format` (`{document}`; a literal brace
            is doubled).
        names: the placeholders that the task fills.

    Raises:
        InputError: braces that do not match, a placeholder that is missing or not known, or whitespace at the end.
    """
    wanted = " and ".join(f"{{{name}}}" for name in names)
    try:
        parts = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise InputError(
            f"a template with braces that do not match: {error}",
            field="template",
            value=template,
            mend=f"Write {wanted}; double any other brace",
        ) from error
    found = {name for name, _, _ in parts if name is not None}
    if found != set(names) or any(spec or conversion for _, spec, conversion in parts):
        raise InputError(
            f"a template needs the placeholder{'s' if len(names) > 1 else ''} {wanted} and no other",
            field="template",
            value=template,
            mend="Double any other brace",
        )
    if template != template.rstrip():
        raise InputError(
            "a template must not end in whitespace: the completion begins with the space",
            field="template",
            value=template,
            mend="Remove it",
        )


def check_at_least(field: str, value: int, minimum: int) -> None:
    """Refuse a whole number under `minimum`.

    Raises:
        InputError: `value` is not a whole number or is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"a whole number of at least {minimum} is expected", field=field, value=value)


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise FieldError(field, f"is {_shown(value)}: a text is expected")
    if not value.strip():
        raise FieldError(field, "is blank: a text is expected")
    return value.strip()


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple | dict) and not value:
        return "empty"
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
