"""What options hold beyond plain text: YAML values, `NAME=VALUE` settings, dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pomona.errors import InputError, suggest

if TYPE_CHECKING:
    import torch

_DTYPES = ("bfloat16", "float16", "float32")


def value_of(text: str, option: str, mend: str) -> Any:
    """What `text` means as YAML: numbers, lists, `{filter: q_proj, value: 0.5}`.

    Raises:
        InputError: it is not YAML; names the option.
    """
    import yaml

    try:
        return _with_numbers(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError("cannot be read", field=option, value=text, mend=mend) from error


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


def settings(given: Sequence[str]) -> dict[str, Any]:
    """`["density=0.3"]` as `{"density": 0.3}`.

    Raises:
        InputError: one is not NAME=VALUE, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise InputError("is not NAME=VALUE", field="--set", value=one, mend="Write for example --set density=0.3")
        if name in found:
            raise InputError(f"{name} is set twice", field="--set", value=one)
        found[name] = value_of(text, "--set", "Write for example --set density=0.3")
    return found


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name in `--dtype`.

    Raises:
        InputError: no such dtype to write.
    """
    import torch

    if name not in _DTYPES:
        raise InputError("cannot be written", field="--dtype", value=name, mend=suggest(name, _DTYPES))
    return getattr(torch, name)
