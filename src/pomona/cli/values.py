"""What options hold beyond plain text: YAML values and `NAME=VALUE` settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pomona.errors import InputError, suggest

if TYPE_CHECKING:
    from pomona.backbone.decoding import Decoding


def value_of(text: str, option: str, fix: str) -> Any:
    """What `text` means as YAML: numbers, lists, `{filter: q_proj, value: 0.5}`.

    Raises:
        InputError: it is not YAML; names the option.
    """
    import yaml

    from pomona.runs.read_yaml import read_yaml

    try:
        return _with_numbers(read_yaml(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("cannot be read", field=option, value=text, fix=fix) from error


def _with_numbers(value: Any) -> Any:
    """YAML 1.1 takes `1e-3` for text; here it is a number, and so is `nan`, to be refused as one."""
    if isinstance(value, list):
        return [_with_numbers(one) for one in value]
    if isinstance(value, dict):
        return {key: _with_numbers(one) for key, one in value.items()}
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def settings(given: Sequence[str], option: str = "--set", example: str = "density=0.3") -> dict[str, Any]:
    """`["density=0.3"]` as `{"density": 0.3}`.

    Args:
        given: the option's values.
        option: its name, for errors.
        example: of a value, for errors.

    Raises:
        InputError: one is not NAME=VALUE, or a name comes twice.
    """
    found: dict[str, Any] = {}
    fix = f"Write for example {option} {example}"
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise InputError("is not NAME=VALUE", field=option, value=one, fix=fix)
        if name in found:
            raise InputError(f"{name} is set twice", field=option, value=one)
        found[name] = value_of(text, option, fix)
    return found


def columns_of(given: Sequence[str]) -> dict[str, str]:
    """`["document=abstract"]` as `{"document": "abstract"}`.

    Raises:
        InputError: one is not FIELD=COLUMN, or a field comes twice.
    """
    found: dict[str, str] = {}
    for one in given:
        field, equals, column = one.partition("=")
        if not equals or not field or not column:
            raise InputError("is not FIELD=COLUMN", field="--column", value=one, fix="Write for example --column document=abstract")
        if field in found:
            raise InputError(f"{field} is mapped twice", field="--column", value=one)
        found[field] = column
    return found


def metrics_of(given: Sequence[str] | None) -> list[Any] | None:
    """`--metric` as `make_metrics` takes it: names, or `{name: ..., parameter: value}`; None where there are none."""
    fix = 'Write a name, or "{name: bert_score, model: DIR}"'
    return [value_of(one, "--metric", fix) for one in given] if given else None


def decoding_of(given: Sequence[str] | None) -> Decoding | None:
    """`--decode` as a `Decoding`; None where there is none.

    Raises:
        InputError: a setting that is not known, or a value that does not fit.
    """
    import dataclasses

    from pomona.backbone.decoding import Decoding

    if not given:
        return None
    known = [field.name for field in dataclasses.fields(Decoding)]
    values = settings(given, "--decode", "num_beams=4")
    for name in values:
        if name not in known:
            raise InputError("no such setting", field="--decode", value=name, fix=suggest(name, known))
    return Decoding(**values)


def refuse_given(options: Mapping[str, object], reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        options: name -> value; None or an empty list where it is not given.
        reason: why there would be none.

    Raises:
        InputError: one is given.
    """
    for name, value in options.items():
        if value is not None and value != []:
            raise InputError(f"has no effect: {reason}", field=name, fix="Leave it out")
