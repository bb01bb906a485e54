"""The four disjoint splits of the target data: drawn by seed, whole groups apart, and checked for leaks by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pomona.data.example import Example, Splits
from pomona.data.leaks import near_documents, refuse_leaks
from pomona.data.pools import Pool
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
                raise InputError(f"the {name} split would be empty", field=name, value=size, fix="Give it 1 example or more")


def make_splits(
    train: Sequence[Example],
    dev: Sequence[Example] | None = None,
    test: Sequence[Example] | None = None,
    *,
    sizes: SplitSizes,
    seed: int,
    near_duplicates: bool = True,
) -> Splits:
    """Draw the four splits from one pool, or from up to three given ones.

    Examples that share a group or a normalised document form a bundle, and a bundle goes to one split: what a split does not need
    of the last bundle that it touches is left out. So is a bundle with a near-duplicate (see `check_leaks`) of what another split
    drew from the pool before. A pool's bundles are ordered by a hash of seed and content, so neither the rows' order nor a global
    random state matters. Test and dev come from the front of their own pool where there is one, else of the train pool, test first.

    Train comes from the front of what these leave, micro dev from its back. So the training examples do not depend on the number
    of micro dev examples, nor these on the number of the former, and in both a smaller number's examples are the first of a larger
    one's. Of near-duplicates micro dev may have only the one that is nearest to the front; the others are left to train. Where
    the pool is too small for that, micro dev has what stands at the back, and train leaves out what is near to it. Where it is too
    small for both and there is a dev pool, micro dev comes from the dev pool's rest.

    Args:
        train: the train pool, or the only pool.
        dev: a pool of its own for dev, if given.
        test: a pool of its own for test, if given.
        sizes: how many examples each split gets.
        seed: another seed draws other splits.
        near_duplicates: whether near-duplicates are kept out of a second split, and refused between pools. Off for structured
            inputs, which are nearly equal by nature.

    Raises:
        InputError: too few examples, or a document in two pools, or nearly so, that the draw put in two splits.
    """
    near = near_documents([*train, *(dev or ()), *(test or ())]) if near_duplicates else []
    train_pool = Pool("train", train, seed, near)
    dev_pool = Pool("dev", dev, seed, near) if dev is not None else train_pool
    test_pool = Pool("test", test, seed, near) if test is not None else train_pool
    for name, pool in (("dev", dev_pool), ("test", test_pool)):
        if getattr(sizes, name) is None and pool is train_pool:
            raise InputError(
                f"all of the train pool cannot be the {name} split", field=name, value=None, fix="Give it a number or a file"
            )
    drawn_test = test_pool.draw("test", sizes.test)
    drawn_dev = dev_pool.draw("dev", sizes.dev)
    drawn_micro_dev = _draw_micro_dev(train_pool, dev_pool, sizes)
    drawn_train = train_pool.draw("train", sizes.train)
    splits = Splits(train=drawn_train, micro_dev=drawn_micro_dev, dev=drawn_dev, test=drawn_test)
    refuse_leaks(splits, near)
    return splits


def _draw_micro_dev(train_pool: Pool, dev_pool: Pool, sizes: SplitSizes) -> tuple[Example, ...]:
    """Micro dev from the train pool's back, in the first way that leaves enough for train, or from the dev pool's rest."""
    for behind_near in (False, True):
        trial = train_pool.trial()
        try:
            trial.draw_back("micro_dev", sizes.micro_dev, behind_near=behind_near)
            trial.draw("train", sizes.train)
        except InputError:
            continue
        return train_pool.draw_back("micro_dev", sizes.micro_dev, behind_near=behind_near)
    if dev_pool is not train_pool:
        return dev_pool.draw("micro_dev", sizes.micro_dev)
    return train_pool.draw_back("micro_dev", sizes.micro_dev, behind_near=True)


def fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 of the examples' content in their order: prompts with the turns before them, targets, references, documents.

    The chat template's arguments count, where there are any; ids and groups do not matter.
    """
    digest = hashlib.sha256()
    for example in examples:
        content: list[object] = [example.prompt, example.target, example.references, example.document]
        if example.history is not None:
            content.append([[turn.role, turn.content] for turn in example.history])
        if example.template_arguments:
            content.append(example.template_arguments)
        digest.update(json.dumps(content).encode() + b"\n")
    return digest.hexdigest()
