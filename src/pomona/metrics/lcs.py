"""Longest common subsequences in bit-parallel form: a row of the usual table is one integer, so long texts cost little.

Axes: the reference's R tokens are the bits of an integer, lowest first. With `L[r, p]` the length of the longest common
subsequence of the reference's first r tokens and the prediction's first p, bit r - 1 of the column p is 0 where
`L[r, p] = L[r - 1, p] + 1`, and 1 where both are equal.
Crochemore, Iliopoulos, Pinzon, Reid, "A Fast and Practical Bit-Vector Algorithm for the Longest Common Subsequence Problem" (2001).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def positions(reference: Sequence[Hashable]) -> dict[Hashable, int]:
    """Token -> integer whose bits say where it stands in the reference."""
    places: dict[Hashable, int] = {}
    for place, token in enumerate(reference):
        places[token] = places.get(token, 0) | 1 << place
    return places


def common_length(reference: Sequence[Hashable], prediction: Sequence[Hashable]) -> int:
    """How many tokens the longest common subsequence has."""
    places = positions(reference)
    everywhere = column = (1 << len(reference)) - 1
    for token in prediction:
        if here := places.get(token):
            raised = column & here
            column = ((column + raised) | (column - raised)) & everywhere
    return len(reference) - column.bit_count()


def common_places(places: dict[Hashable, int], length: int, prediction: Sequence[Hashable]) -> int:
    """Where in the reference one longest common subsequence stands, as the bits of an integer.

    Where there are several, it is the one that rouge-score reads out of its table from the end: a match is always taken; else it
    goes one token back in the reference, unless only going back in the prediction keeps the length.

    Args:
        places: `positions` of the reference.
        length: R, the reference's tokens.
        prediction: the other side's tokens.
    """
    everywhere = (1 << length) - 1
    column, columns = everywhere, [everywhere]
    for token in prediction:
        if here := places.get(token):
            raised = column & here
            column = ((column + raised) | (column - raised)) & everywhere
        columns.append(column)
    found, before = 0, everywhere
    for place in range(len(prediction), 0, -1):
        here = places.get(prediction[place - 1], 0)
        # Going back in the reference, the first token that either matches or raises the length.
        last = ((here | ~columns[place]) & before).bit_length()
        if not last:
            break
        before = (1 << last) - 1
        if here >> (last - 1) & 1:
            before >>= 1
            found |= 1 << (last - 1)
    return found
