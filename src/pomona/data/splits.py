"""The four disjoint splits of the target data: drawn by seed, whole groups apart, and checked for leaks by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pomona.data.content import normalised
from pomona.data.example import Example, Splits
from pomona.errors import InputError


@dataclass(frozen=True)
class SplitSizes:
    """How many examples each split gets.

    Args:
        train: a number >= 1, or None for all that the train pool has left.
        micro_dev: a number >= 1.
        dev: a number >= 1, or None for all of the dev pool.
        test: a number >= 1, or None for all of the test pool.

    Raises:
        InputError: a size that is not a whole number >= 1; the split is named.
    """

    train: int | None = 50
    micro_dev: int = 16
    dev: int | None = 50
    test: int | None = 100

    def __post_init__(self) -> None:
        for name in ("train", "micro_dev", "dev", "test"):
            size = getattr(self, name)
            if size is None and name != "micro_dev":
                continue
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"the {name} split would be empty", field=name, value=size, mend="Give it 1 example or more")


def make_splits(
    train: Sequence[Example],
    dev: Sequence[Example] | None = None,
    test: Sequence[Example] | None = None,
    *,
    sizes: SplitSizes,
    seed: int,
) -> Splits:
    """Draw the four splits from one pool, or from up to three given ones.

    Examples that share a group or a normalised document form a bundle, and a bundle goes to one split: what a split does not need
    of the last bundle that it touches is left out. A pool's bundles are ordered by a hash of seed and content, so neither the
    rows' order nor a global random state matters. Splits draw in the order test, dev, micro dev, train: another number of
    training examples leaves the other three as they are, and its examples are a prefix of a larger draw's.

    Test and dev come from their own pool where there is one, else from the train pool. Micro dev comes from the train pool's rest;
    where that is too small for both micro dev and train and there is a dev pool, from the dev pool's rest.

    Args:
        train: the train pool, or the only pool.
        dev: a pool of its own for dev, if given.
        test: a pool of its own for test, if given.
        sizes: how many examples each split gets.
        seed: another seed draws other splits.

    Raises:
        InputError: too few examples, or a document in two pools that the draw put in two splits.
    """
    train_pool = _Pool("train", train, seed)
    dev_pool = _Pool("dev", dev, seed) if dev is not None else train_pool
    test_pool = _Pool("test", test, seed) if test is not None else train_pool
    for name, pool in (("dev", dev_pool), ("test", test_pool)):
        if getattr(sizes, name) is None and pool is train_pool:
            raise InputError(
                f"all of the train pool cannot be the {name} split", field=name, value=None, mend="Give it a number or a file"
            )
    drawn_test = test_pool.draw("test", sizes.test)
    drawn_dev = dev_pool.draw("dev", sizes.dev)
    micro_dev_pool = train_pool if dev is None or train_pool.holds(sizes.micro_dev, sizes.train or 1) else dev_pool
    drawn_micro_dev = micro_dev_pool.draw("micro_dev", sizes.micro_dev)
    drawn_train = train_pool.draw("train", sizes.train)
    splits = Splits(train=drawn_train, micro_dev=drawn_micro_dev, dev=drawn_dev, test=drawn_test)
    check_leaks(splits)
    return splits


def check_leaks(splits: Splits) -> None:
    """Refuse splits that share content: a normalised document (NFKC, case and whitespace folded) or a group in two of them.

    A shared context with another question is a leak, too.

    Raises:
        InputError: names both splits and both ids, or the split that is empty.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name, examples in splits.named():
        if not examples:
            raise InputError(f"the {name} split is empty", field=name, mend="Give it 1 example or more")
        for example in examples:
            for key in _keys(example):
                other_name, other_id = seen.setdefault(key, (name, example.id))
                if other_name != name:
                    raise InputError(
                        f"{other_name} and {name} share a document: {other_name} has it in {other_id!r}, {name} in {example.id!r}",
                        mend="Remove it from one of them, or give one pool and let the splits be drawn",
                    )


def fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 of the examples' content (prompts, targets, references, documents) in their order; ids and groups do not matter."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.prompt, example.target, example.references, example.document]).encode() + b"\n")
    return digest.hexdigest()


class _Pool:
    """What is left of one pool: bundles in their seeded order, taken from the front."""

    def __init__(self, name: str, examples: Sequence[Example], seed: int) -> None:
        self.name = name
        self.total = len(examples)
        self.bundles = sorted(_bundles(examples), key=lambda bundle: _rank(seed, bundle))
        self.drawn: list[str] = []

    @property
    def left(self) -> int:
        return sum(map(len, self.bundles))

    def draw(self, split: str, size: int | None) -> tuple[Example, ...]:
        """The next `size` examples (None: all), from whole bundles."""
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
        self.bundles = self.bundles[count:]
        self.drawn.append(f"{len(taken)} for {split}")
        return tuple(taken)

    def holds(self, *sizes: int) -> bool:
        """Whether draws of these sizes would all succeed."""
        start = 0
        for size in sizes:
            count = _bundles_needed(self.bundles[start:], size)
            if count is None:
                return False
            start += count
        return True


def _bundles_needed(bundles: Sequence[Sequence[Example]], size: int) -> int | None:
    """How many bundles from the front hold `size` examples, or None where all of them do not."""
    held = 0
    for count, bundle in enumerate(bundles, start=1):
        held += len(bundle)
        if held >= size:
            return count
    return None


def _keys(example: Example) -> tuple[str, ...]:
    document = f"document:{normalised(example.document)}"
    return (document,) if example.group is None else (document, f"group:{example.group}")


def _bundles(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples that are connected by groups or normalised documents, each bundle sorted by content."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for example in examples:
        first, *rest = _keys(example)
        for key in rest:
            parent[root(key)] = root(first)
    bundles: dict[str, list[Example]] = {}
    for example in examples:
        bundles.setdefault(root(_keys(example)[0]), []).append(example)
    return [sorted(bundle, key=_content) for bundle in bundles.values()]


def _content(example: Example) -> tuple[str, str, str, str]:
    return example.document, example.prompt, example.target, example.id


def _rank(seed: int, bundle: Sequence[Example]) -> bytes:
    """Where a bundle stands in the pool's order; its ids play no part, as they may come from the rows' order."""
    return hashlib.sha256(json.dumps([seed, bundle[0].document, bundle[0].prompt]).encode()).digest()
