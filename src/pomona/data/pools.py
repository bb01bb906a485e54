"""A pool of examples, from which splits draw whole bundles in a seeded order."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence

from pomona.data.example import Example
from pomona.data.leaks import NearDocuments, content_keys
from pomona.errors import InputError


class Pool:
    """What is left of one pool: bundles in their seeded order, taken from the front.

    Args:
        name: of the pool, for errors.
        examples: all that it holds.
        seed: another seed gives another order.
        near: pairs of documents that must not come to stand in two splits.
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
        """How many examples can still be drawn."""
        return sum(map(len, self.bundles))

    def draw(self, split: str, size: int | None) -> tuple[Example, ...]:
        """The next `size` examples (None: all), from whole bundles; what is near to one of them is left out from then on."""
        wanted = max(self.left, 1) if size is None else size
        count = _bundles_needed(self.bundles, wanted)
        if count is None:
            drawn = f" after {', '.join(self.drawn)}" if self.drawn else ""
            raise InputError(
                f"too few examples: {split} needs {wanted}, {self.left} of {self.total} in the {self.name} pool are left{drawn}",
                field=split,
                value=size,
                mend="Lower the sizes or give more rows",
            )
        taken = [example for bundle in self.bundles[:count] for example in bundle][:wanted]
        rest = self.bundles[count:]
        close = {other for example in taken for other in self.near_to.get(content_keys(example)[0], ())} if self.near_to else set()
        self.bundles = [bundle for bundle in rest if not _any_in(close, bundle)] if close else rest
        left_out = sum(map(len, rest)) - self.left
        self.drawn += (f"{len(taken)} for {split}{f' and {left_out} near-duplicates of them' if left_out else ''}",)
        return tuple(taken)

    def holds(self, *sizes: int) -> bool:
        """Whether draws of these sizes would all succeed."""
        trial = copy.copy(self)
        try:
            for size in sizes:
                trial.draw("", size)
        except InputError:
            return False
        return True


def _bundles_needed(bundles: Sequence[Sequence[Example]], size: int) -> int | None:
    """How many bundles from the front hold `size` examples, or None where all of them do not."""
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
    """Where a bundle stands in the pool's order; its ids play no part, as they may come from the rows' order."""
    return hashlib.sha256(json.dumps([seed, bundle[0].document, bundle[0].prompt]).encode()).digest()
