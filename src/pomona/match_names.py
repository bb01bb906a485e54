"""Which of many names regular expressions match. As a program of its own, with a limit of time: JSON in, JSON out.

It imports nothing of Pomona, so that it starts in a few hundredths of a second.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import TypeAlias

LAYER = "layer"
"""The group of an expression whose text is wanted."""


Hits: TypeAlias = "list[tuple[int, str | None] | None]"


def match_names(expressions: Sequence[str], names: Sequence[str], *, full: bool) -> tuple[Hits, list[int]]:
    """Match every name.

    Args:
        expressions: tried in this order.
        names: the names.
        full: an expression must match the whole name, and not only its beginning.

    Returns:
        For each name the position of the first expression that matches it, and the text of its group `layer`; and the positions
        of the expressions that match no name.
    """
    compiled = [re.compile(expression) for expression in expressions]
    tries = [one.fullmatch if full else one.match for one in compiled]
    found: Hits = []
    for name in names:
        hit = next(((place, match) for place, attempt in enumerate(tries) if (match := attempt(name)) is not None), None)
        found.append(None if hit is None else (hit[0], hit[1].groupdict().get(LAYER)))
    first = {hit[0] for hit in found if hit is not None}
    unused = [place for place, attempt in enumerate(tries) if place not in first and not any(map(attempt, names))]
    return found, unused


def main() -> None:
    """Read expressions, names and limits from standard input, write what `match_names` finds to standard output."""
    given = json.load(sys.stdin)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"]))
    except ImportError:  # Windows: whoever started this process ends it
        pass
    json.dump(match_names(given["expressions"], given["names"], full=given["full"]), sys.stdout)


if __name__ == "__main__":
    main()
