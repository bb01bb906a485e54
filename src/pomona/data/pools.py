"""A pool of examples, from which splits draw whole bundles in a seeded order, from either end."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence

from pomona.data.example import Example
from pomona.data.leaks import NearDocuments, content_keys
from pomona.errors import InputError


class Pool:
    """The remaining bundles of one pool, in their seeded order, taken from the front or from the back.

    Args:
        name: of the pool, for errors.
        examples: all examples of the pool.
        seed: another seed gives another order.
        near: pairs of documents that must not get into two splits.
    """

    def __init__(self, name: str, examples: Sequence[Example], seed: int, near: Iterable[NearDocuments] = ()) -> None:
        self.name = name
        self.total = len(examples)
        self.bundles = sorted(_bundles(examples), key=lambda bundle: _rank(seed, bundle))
        self.drawn: tuple[str, ...] = ()
        self.near_to: dict[str, set[str]] = {}
        for first, second, _ in near:
            self.near_to.setdefault(first, set()).add(second)
            self.near_to.setdefault(second, set()).add(first)

    @property
    def left(self) -> int:
        """The number of examples that can still be drawn."""
        return sum(map(len, self.bundles))

    def draw(self, split: str, size: int | None) -> tuple[Example, ...]:
        """The next `size` examples (None: all), from whole bundles; later draws exclude their near-duplicates."""
        return self._take(split, size, self.bundles)

    def draw_back(self, split: str, size: int, *, behind_near: bool) -> tuple[Example, ...]:
        """`size` examples from whole bundles at the back, the last bundle first; later draws exclude their near-duplicates.

        Args:
            split: for errors.
            size: number of examples; a smaller draw is a prefix of a larger one.
            behind_near: whether a bundle may be drawn if an earlier bundle is near to it. If not, a later draw from the front
                loses nothing before the first bundle drawn here, so neither draw depends on the other's size until they meet.
        """
        return self._take(split, size, (self.bundles if behind_near else self._first_of_near())[::-1])

    def _take(self, split: str, size: int | None, bundles: Sequence[Sequence[Example]]) -> tuple[Example, ...]:
        wanted = max(self.left, 1) if size is None else size
        count = _bundles_needed(bundles, wanted)
        if count is None:
            drawn = f" after {', '.join(self.drawn)}" if self.drawn else ""
            raise InputError(
                f"too few examples: {split} needs {wanted}, {self.left} of {self.total} in the {self.name} pool are left{drawn}",
                field=split,
                value=size,
                fix="Lower the sizes or give more rows",
            )
        taken = [example for bundle in bundles[:count] for example in bundle][:wanted]
        gone = {id(bundle) for bundle in bundles[:count]}
        rest = [bundle for bundle in self.bundles if id(bundle) not in gone]
        close = self._near(taken)
        self.bundles = [bundle for bundle in rest if not _any_in(close, bundle)] if close else rest
        left_out = sum(map(len, rest)) - self.left
        self.drawn += (f"{len(taken)} for {split}{f' and {left_out} near-duplicates of them' if left_out else ''}",)
        return tuple(taken)

    def _first_of_near(self) -> list[list[Example]]:
        """The bundles that are not near to an earlier bundle."""
        if not self.near_to:
            return self.bundles
        near_before: set[str] = set()
        first: list[list[Example]] = []
        for bundle in self.bundles:
            if not _any_in(near_before, bundle):
                first.append(bundle)
            near_before |= self._near(bundle)
        return first

    def _near(self, examples: Iterable[Example]) -> set[str]:
        """The documents that are near to the document of an example."""
        return (
            {other for example in examples for other in self.near_to.get(content_keys(example)[0], ())} if self.near_to else set()
        )

    def trial(self) -> Pool:
        """A copy for trial draws, which leave this pool unchanged."""
        return copy.copy(self)


def _bundles_needed(bundles: Sequence[Sequence[Example]], size: int) -> int | None:
    """The number of bundles from the front that contain `size` examples, or None if all of them contain fewer."""
    held = 0
    for count, bundle in enumerate(bundles, start=1):
        held += len(bundle)
        if held >= size:
            return count
    return None


def _any_in(documents: set[str], bundle: Sequence[Example]) -> bool:
    return any(content_keys(example)[0] in documents for example in bundle)


def _bundles(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples that are connected by groups or equal documents, each bundle sorted by content."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    keys = [content_keys(example) for example in examples]
    for first, *others in keys:
        for other in others:
            parent[root(other)] = root(first)
    bundles: dict[str, list[Example]] = {}
    for example, (first, *_) in zip(examples, keys, strict=True):
        bundles.setdefault(root(first), []).append(example)
    return [sorted(bundle, key=_content) for bundle in bundles.values()]


def _content(example: Example) -> tuple[str, str, str, str]:
    return example.document, example.prompt, example.target, example.id


def _rank(seed: int, bundle: Sequence[Example]) -> bytes:
    """The sort key of a bundle in the pool's order; ids do not count, because they may come from the rows' order."""
    return hashlib.sha256(json.dumps([seed, bundle[0].document, bundle[0].prompt]).encode()).digest()
