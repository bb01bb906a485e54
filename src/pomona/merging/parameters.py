"""Checks of hyperparameters, shared by several merge methods."""

from __future__ import annotations

import math
from typing import get_args

from pomona.errors import InputError


def check_share(field: str, value: object, *, zero: bool = False) -> None:
    """Raise InputError unless `value` is a number in (0, 1], or in [0, 1] if `zero` is allowed."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (0 < number <= 1 or (zero and number == 0)):
        raise InputError(f"must be in {'[' if zero else '('}0, 1]", field=field, value=value)


def check_choice(field: str, value: object, choices: object) -> None:
    """Raise InputError unless `value` is one of the strings of `choices`, a `Literal`."""
    known = get_args(choices)
    if value not in known:
        raise InputError(f"must be one of {', '.join(known)}", field=field, value=value)
