"""How much is told of the progress: asked for once, where the program is called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

Verbosity = Literal["quiet", "normal", "verbose"]

_now: Verbosity = "normal"


def verbosity() -> Verbosity:
    """What is asked for: `quiet`, warnings and results only; `verbose`, a line for every stage and every prune ratio."""
    return _now


@contextlib.contextmanager
def told_as(wanted: Verbosity) -> Iterator[None]:
    """Within the block progress is told in this way."""
    global _now
    before, _now = _now, wanted
    try:
        yield
    finally:
        _now = before
