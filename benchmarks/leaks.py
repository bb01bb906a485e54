"""The cost of finding near-duplicates: 10,000 documents of 1,000 characters, and a part of them compared with sets of strings.

The texts are random words and so not near-duplicates; a tenth of them are copies with another beginning, which must be found.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from pomona.data.content import normalised
from pomona.data.near import SHINGLE_CHARACTERS, near_duplicates

T = TypeVar("T")
DOCUMENTS = 10_000
PART = 1_000
CHARACTERS = 1_000
BOUND_SECONDS = 15.0
BOUND_RATIO = 0.5


def run() -> bool:
    """Print the ratio to sets on a part and the seconds for all; whether both keep their bounds and the pairs are the same."""
    texts = _texts()
    part = [*texts[: PART // 2], *texts[-DOCUMENTS // 10 :][: PART // 2]]
    ours, found = _timed(near_duplicates, part)
    theirs, expected = _timed(_by_sets, part)
    same = [pair[:2] for pair in found] == expected
    seconds, pairs = _timed(near_duplicates, texts)
    ratio = ours / theirs
    print(f"  {PART} documents: {ours:.2f} s, sets {theirs:.2f} s, ratio {ratio:.2f} (bound {BOUND_RATIO})")
    print(f"  the same {len(found)} pairs: {same}")
    print(f"  {DOCUMENTS} documents: {seconds:.1f} s (bound {BOUND_SECONDS}), {len(pairs)} pairs")
    return same and ratio <= BOUND_RATIO and seconds <= BOUND_SECONDS


def _texts() -> list[str]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]

    def text(characters: int) -> str:
        return " ".join(draw.choices(words, k=characters // 3))[:characters]

    own = [text(CHARACTERS) for _ in range(DOCUMENTS * 9 // 10)]
    copies = [text(CHARACTERS // 3) + one[CHARACTERS // 3 :] for one in own[: DOCUMENTS // 10]]
    return own + copies


def _by_sets(texts: list[str]) -> list[tuple[int, int]]:
    """The pairs, from sets of strings and a list of texts for each string; nothing is boilerplate."""
    holders: dict[str, list[int]] = {}
    sizes: list[int] = []
    found: list[tuple[int, int]] = []
    for index, text in enumerate(map(normalised, texts)):
        runs = {text[start : start + SHINGLE_CHARACTERS] for start in range(len(text) - SHINGLE_CHARACTERS + 1)}
        common = Counter(other for one in runs for other in holders.get(one, ()))
        found.extend((other, index) for other, count in common.items() if count > 0.5 * min(sizes[other], len(runs)))
        for one in runs:
            holders.setdefault(one, []).append(index)
        sizes.append(len(runs))
    return sorted(found)


def _timed(find: Callable[[list[str]], list[T]], texts: list[str]) -> tuple[float, list[T]]:
    started = time.process_time()
    result = find(texts)
    return time.process_time() - started, result


if __name__ == "__main__":
    run()
