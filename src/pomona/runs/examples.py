"""From a recipe's data to examples: the target's splits, and those of one pool."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

from pomona.data import Example, Splits, examples, incomplete_rows, make_splits, number_rows, read_rows
from pomona.data.corpora import Documents, docstring_rows, without
from pomona.data.leaks import near_documents
from pomona.data.pools import Pool
from pomona.data.tasks import Task
from pomona.errors import InputError
from pomona.runs.recipe import Data, Recipe


def read_splits(recipe: Recipe) -> Splits:
    """The target's four splits.

    Raises:
        InputError: whatever is wrong with the data: file, line, field, value.
    """
    pools = _pools(recipe.data, recipe.task)
    apart = recipe.data.near_duplicates == "apart"
    return make_splits(*pools, sizes=recipe.splits, seed=recipe.seed, near_duplicates=apart)


def splits_around_test(recipe: Recipe, test_seed: int, pool_of: Callable[[Data], tuple[Example, ...]]) -> Splits:
    """The splits of a run whose test examples another seed draws, so that runs of several seeds answer the same ones.

    Args:
        recipe: the run's; its seed draws the other splits from what is left.
        test_seed: draws the test split.
        pool_of: gives all examples of one source.

    Raises:
        InputError: whatever is wrong with the data.
    """
    data = recipe.data

    def pool(source: str | tuple[str, ...] | None) -> tuple[Example, ...]:
        return pool_of(data if data.docstrings else data.model_copy(update={"train": source, "dev": None, "test": None}))

    train = pool(data.train)
    dev, test = (pool(source) if source else None for source in (data.dev, data.test))
    if test is None and recipe.splits.test is None:
        return read_splits(recipe)  # says why that cannot be
    near = near_documents([*train, *(dev or ()), *(test or ())]) if data.near_duplicates == "apart" else []
    from_pool = Pool("train" if test is None else "test", train if test is None else test, test_seed, near)
    drawn = from_pool.draw("test", recipe.splits.test)
    rest = train if test is not None else [example for bundle in from_pool.bundles for example in bundle]
    sizes = dataclasses.replace(recipe.splits, test=None)
    found = make_splits(rest, dev, drawn, sizes=sizes, seed=recipe.seed, near_duplicates=data.near_duplicates == "apart")
    return dataclasses.replace(found, test=drawn)  # the same examples, in the order that every seed has


def read_examples(data: Data, task: Task, count: int | None, seed: int) -> tuple[Example, ...]:
    """The examples of one pool, `count` of them drawn by seed, or all.

    Raises:
        InputError: whatever is wrong with the data; fewer examples than asked for.
    """
    return draw(_pools(data, task)[0], count, seed)


def draw(pool: tuple[Example, ...], count: int | None, seed: int) -> tuple[Example, ...]:
    """`count` examples of a pool by seed, or all; which ones depends on their content, not on their order.

    Raises:
        InputError: fewer examples than asked for.
    """
    if count is None:
        return pool
    if count > len(pool):
        raise InputError(f"only {len(pool)} examples are there", field="examples", value=count, fix="Ask for fewer or give more")
    # Ordered by a hash of content, as splits are: the rows' order plays no part, and fewer examples are a prefix of more.
    ranked = sorted(pool, key=lambda example: hashlib.sha256(f"{seed}|{example.prompt}|{example.target}".encode()).digest())
    return tuple(ranked[:count])


def _pools(data: Data, task: Task) -> tuple[tuple[Example, ...], tuple[Example, ...] | None, tuple[Example, ...] | None]:
    if data.docstrings is not None:
        rows = _docstrings(data.docstrings, data.documents)
        for package in data.exclude_docstrings:
            rows = without(rows, _docstrings(package, data.documents))
        return examples(number_rows(rows), task, data.origin), None, None

    def pool(source: str | tuple[str, ...]) -> tuple[Example, ...]:
        skip = data.incomplete_rows == "skip"
        return _joined([examples(read_rows(file, data.columns), task, file, skip_incomplete=skip) for file in Data.files(source)])

    assert data.train is not None
    return pool(data.train), pool(data.dev) if data.dev else None, pool(data.test) if data.test else None


def _joined(of_files: Sequence[Sequence[Example]]) -> tuple[Example, ...]:
    """The examples of several files; an id that two files have is preceded by the number of the file, from 1."""
    files_with = Counter(id for one in of_files for id in {example.id for example in one})
    return tuple(
        dataclasses.replace(example, id=f"{number}:{example.id}") if files_with[example.id] > 1 else example
        for number, one in enumerate(of_files, start=1)
        for example in one
    )


@functools.cache
def _docstrings(package: str, documents: Documents) -> list[dict[str, str]]:
    """Parsing a large package takes seconds, and a recipe names it up to three times. Nothing changes the rows."""
    return docstring_rows(package, documents)


def skipped_rows(data: Data, task: Task) -> list[str]:
    """A warning for each file of which rows are left out."""
    if data.incomplete_rows != "skip":
        return []
    files = [file for pool in (data.train, data.dev, data.test) for file in Data.files(pool)]
    found = {file: incomplete_rows(read_rows(file, data.columns), task, file) for file in files}
    return [f"left out of {file}, incomplete: {len(lines)} rows, such as line {lines[0]}" for file, lines in found.items() if lines]
