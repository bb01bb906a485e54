"""The four disjoint splits of the target data: drawn by seed, in whole groups, and checked for leaks by content."""

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
    """The number of examples of each split.

    Args:
        train: a number >= 1, or None for the rest of the train pool.
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

    Examples that share a group or a normalised document form a bundle. A bundle goes to one split: the surplus of the last bundle
    that a split uses is dropped. A bundle with a near-duplicate (see `check_leaks`) of examples that another split drew from the
    pool before is dropped too. A pool's bundles are sorted by a hash of seed and content, so neither the rows' order nor a global
    random state matters. Test and dev come from the front of their own pool if there is one, else of the train pool, test first.

    Train comes from the front of the rest, micro dev from its back. So the training examples do not depend on the number of micro
    dev examples, nor the micro dev examples on the number of training examples, and a smaller split is a prefix of a larger one.
    Of several near-duplicates, micro dev may use only the one nearest to the front; the others remain for train. If the pool is
    too small for this rule, micro dev takes the back of the pool, and train excludes its near-duplicates. If the pool is too small
    for both and there is a dev pool, micro dev comes from the rest of the dev pool.

    Args:
        train: the train pool, or the only pool.
        dev: a pool of its own for dev, if given.
        test: a pool of its own for test, if given.
        sizes: the number of examples of each split.
        seed: another seed draws other splits.
        near_duplicates: whether near-duplicates are excluded from a second split, and refused between pools. Set False for
            structured inputs, which are always nearly equal.

    Raises:
        InputError: too few examples, or an equal or nearly equal document of two pools that was drawn for two splits.
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
    """Micro dev from the back of the train pool, by the first rule that leaves enough for train, or from the dev pool's rest."""
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

    Arguments of the chat template count if there are any; ids and groups do not.
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
