"""Longest common subsequences in bit-parallel form: a column of the usual table is one integer, so long texts are fast.

Axes: the reference's R tokens are the bits of an integer, lowest first. With `L[r, p]` the length of the longest common
subsequence of the reference's first r tokens and the prediction's first p, bit r - 1 of column p is 0 if
`L[r, p] = L[r - 1, p] + 1`, and 1 if both are equal.
Crochemore, Iliopoulos, Pinzon, Reid, "A Fast and Practical Bit-Vector Algorithm for the Longest Common Subsequence Problem" (2001).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def positions(reference: Sequence[Hashable]) -> dict[Hashable, int]:
    """Token -> integer whose bits are its positions in the reference."""
    places: dict[Hashable, int] = {}
    for place, token in enumerate(reference):
        places[token] = places.get(token, 0) | 1 << place
    return places


def common_length(reference: Sequence[Hashable], prediction: Sequence[Hashable]) -> int:
    """The number of tokens of the longest common subsequence."""
    places = positions(reference)
    everywhere = column = (1 << len(reference)) - 1
    for token in prediction:
        if here := places.get(token):
            raised = column & here
            column = ((column + raised) | (column - raised)) & everywhere
    return len(reference) - column.bit_count()


def common_places(places: dict[Hashable, int], length: int, prediction: Sequence[Hashable]) -> int:
    """The positions of one longest common subsequence in the reference, as the bits of an integer.

    Of several subsequences, it is the one that rouge-score finds from the end of its table: a match is always used; else one step
    back in the reference, unless only a step back in the prediction keeps the length.

    Args:
        places: `positions` of the reference.
        length: R, the number of the reference's tokens.
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
        # Backwards in the reference, the first token that either matches or raises the length.
        last = ((here | ~columns[place]) & before).bit_length()
        if not last:
            break
        before = (1 << last) - 1
        if here >> (last - 1) & 1:
            before >>= 1
            found |= 1 << (last - 1)
    return found
