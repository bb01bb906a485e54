"""JSON without the faults that its parser accepts: NaN, infinity, a repeated key in one object, unlimited nesting."""

from __future__ import annotations

import json
import math
from collections import Counter

_DEEPEST = 100


def strict_json(text: str) -> object:
    """The value of the JSON `text`.

    A repeated key in one object is refused, because it is ambiguous.

    Raises:
        json.JSONDecodeError: not JSON; the error names line and column.
        ValueError: unusable JSON; the message gives the reason.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    # With fewer brackets than levels, the nesting cannot be too deep; most texts need no walk.
    if text.count("[") + text.count("{") > _DEEPEST and _too_deep(value):
        raise ValueError(f"more than {_DEEPEST} levels of lists and objects")
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits if len(digits) <= 20 else f'{digits[:17]}...'} is too large for a number")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:40]!r} is twice in one object")
    return fields


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        nested = [one for one in level if isinstance(one, list | dict)]
        if not nested:
            return False
        level = [inner for one in nested for inner in (one.values() if isinstance(one, dict) else one)]
    return True
