"""Near-duplicates: texts of which one contains most of the other, found without comparing every pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pomona.data.content import normalised

SHINGLE_CHARACTERS = 24
_POSTINGS_AT_ONCE = 1 << 22
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class NearPair(NamedTuple):
    """The indices of two texts, and the share of the shorter one's shingles that occur in both."""

    first: int
    second: int
    share: float


def near_duplicates(texts: Sequence[str], share: float = 0.5, boilerplate: int = 100) -> list[NearPair]:
    """The pairs of texts that are equal, or that have more than `share` of the shorter one in common.

    `|S(a) & S(b)| > share * min(|S(a)|, |S(b)|)`, where S is the set of a normalised text's shingles (24-character sequences). A
    shingle in more than `boilerplate` different texts (a licence, a frame around every row) is in no S: it is no evidence for a
    pair, and the time to count its pairs would grow with their square. A text of fewer than 24 characters has no shingles, and
    only an equal text counts as its near-duplicate.

    Shingles are compared by a 64-bit hash, so two different ones collide about once in 2^64 comparisons. Memory: 8 bytes per
    character, plus about 200 MB. Time: a few seconds for 10,000 texts of 1,000 characters, and little more if the texts have
    fewer than `boilerplate` shingles in common.

    Args:
        texts: raw texts; this function normalises them.
        share: in [0, 1).
        boilerplate: the largest number of texts in which a shingle counts, >= 2.

    Returns:
        Pairs with first < second, in ascending order. If texts are equal when normalised, each later one is paired with the
        first, with a share of 1, and only the first is compared with the other texts.
    """
    places: list[int] = []
    first_of: dict[str, int] = {}
    pairs: list[NearPair] = []
    shingles: list[NDArray[np.uint64]] = []
    for place, text in enumerate(texts):
        content = normalised(text)
        first = first_of.setdefault(content, place)
        if first != place:
            pairs.append(NearPair(first, place, 1.0))
        else:
            places.append(place)
            shingles.append(_shingles(content))
    for first, second, common in _overlaps(shingles, share, boilerplate):
        pairs.append(NearPair(places[first], places[second], common))
    return sorted(pairs)


def _shingles(text: str) -> NDArray[np.uint64]:
    """The hashes of a text's runs of 24 characters, ascending, each once."""
    if len(text) < SHINGLE_CHARACTERS:
        return np.empty(0, np.uint64)
    one = _mixed(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64))
    # Hashes of runs of 2, 4 and 8, each made of two neighbours of the last kind; 24 is three eights.
    two = _mixed(one[:-1] * _MULTIPLIER + one[1:])
    four = _mixed(two[:-2] * _MULTIPLIER + two[2:])
    eight = _mixed(four[:-4] * _MULTIPLIER + four[4:])
    hashes = np.sort(_mixed((eight[:-16] * _MULTIPLIER + eight[8:-8]) * _MULTIPLIER + eight[16:]))
    return hashes[np.r_[True, hashes[1:] != hashes[:-1]]]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijective hash of each value (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _overlaps(shingles: Sequence[NDArray[np.uint64]], share: float, boilerplate: int) -> list[tuple[int, int, float]]:
    """(first, second, share) of the sets that overlap in more than `share` of the smaller one."""
    texts = len(shingles)
    sizes = np.array([len(one) for one in shingles], np.int64)
    # A posting is one text under one shingle. The postings of a shingle are adjacent, in text order; `later` counts those after it.
    owners, later = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for hashes, holders in _parts(shingles, int(sizes.sum())):
        starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
        counts = np.diff(np.r_[starts, len(hashes)])
        held = np.repeat(counts, counts)
        sizes -= np.bincount(holders[held > boilerplate], minlength=texts)
        kept = (held > 1) & (held <= boilerplate)
        owners.append(holders[kept])
        later.append((np.repeat(starts + counts, counts) - 1 - np.arange(len(hashes)))[kept].astype(np.int32))
    owner, follow = np.concatenate(owners), np.concatenate(later)
    by_text = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=texts))
    found: list[tuple[int, int, float]] = []
    for first in range(texts):
        postings = by_text[ends[first - 1] if first else 0 : ends[first]]
        counts = follow[postings].astype(np.int64)
        total = int(counts.sum())
        if not total:
            continue
        # All postings that follow a posting of this text: the concatenated ranges [posting + 1, posting + 1 + count).
        shifts = postings + 1 - (np.cumsum(counts) - counts)
        common = np.bincount(owner[np.repeat(shifts, counts) + np.arange(total)], minlength=texts)
        smaller = np.minimum(sizes[first], sizes)
        found.extend(
            (first, int(second), float(common[second] / smaller[second])) for second in np.flatnonzero(common > share * smaller)
        )
    return found


def _parts(shingles: Sequence[NDArray[np.uint64]], total: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int32]]]:
    """All hashes and the texts that contain them, sorted by hash, then text, in successive ranges of hashes."""
    parts = total // _POSTINGS_AT_ONCE + 1
    bounds = np.array([(part << 64) // parts for part in range(1, parts)], np.uint64)
    pieces = [np.split(one, np.searchsorted(one, bounds)) for one in shingles]
    for part in zip(*pieces, strict=True):
        hashes = np.concatenate(part)
        holders = np.repeat(np.arange(len(part), dtype=np.int32), [len(piece) for piece in part])
        order = np.argsort(hashes, kind="stable")
        yield hashes[order], holders[order]
