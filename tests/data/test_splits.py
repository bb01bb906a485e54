from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.data import Example, Splits, SplitSizes, check_leaks, fingerprint, make_splits
from pomona.data.content import normalised
from pomona.errors import InputError

SIZES = SplitSizes(train=8, micro_dev=4, dev=5, test=6)


def example(number: int, document: str | None = None, group: str | None = None, name: str = "e") -> Example:
    document = f"document {name} {number}" if document is None else document
    return Example(f"{name}{number}", f"{document} ?{number}", f" t{number}", (f"t{number}",), document, group)


def ids(part: Sequence[Example]) -> list[str]:
    return [one.id for one in part]


def test_one_pool_gives_four_disjoint_splits_of_the_asked_sizes() -> None:
    splits = make_splits([example(n) for n in range(30)], sizes=SIZES, seed=0)
    assert [len(part) for _, part in splits.named()] == [8, 4, 5, 6]
    assert len({one for _, part in splits.named() for one in ids(part)}) == 23


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    pool = [example(n) for n in range(40)]
    shuffled = random.Random(5).sample(pool, len(pool))
    assert make_splits(pool, sizes=SIZES, seed=1) == make_splits(shuffled, sizes=SIZES, seed=1)
    assert make_splits(pool, sizes=SIZES, seed=1) != make_splits(pool, sizes=SIZES, seed=2)


def test_ids_made_from_line_numbers_do_not_steer_the_draw() -> None:
    pool = [example(n) for n in range(40)]
    renamed = [replace(one, id=f"other{n}") for n, one in enumerate(pool)]
    documents = [[one.document for one in make_splits(rows, sizes=SIZES, seed=1).train] for rows in (pool, renamed)]
    assert documents[0] == documents[1]


def test_more_training_examples_change_no_other_split_and_only_add() -> None:
    pool = [example(n) for n in range(60)]
    small, large = (make_splits(pool, sizes=replace(SIZES, train=train), seed=3) for train in (10, 25))
    assert (small.micro_dev, small.dev, small.test) == (large.micro_dev, large.dev, large.test)
    assert small.train == large.train[:10]


@settings(max_examples=30, deadline=None)
@given(
    keys=st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 12))), min_size=20, max_size=40),
    seed=st.integers(0, 1000),
)
def test_neither_a_group_nor_a_document_crosses_splits(keys: list[tuple[int, int | None]], seed: int) -> None:
    pool = [
        example(n, f"Text {document}" if n % 2 else f"text  {document}", None if group is None else f"g{group}")
        for n, (document, group) in enumerate(keys)
    ]
    try:
        splits = make_splits(pool, sizes=SplitSizes(train=2, micro_dev=1, dev=1, test=1), seed=seed)
    except InputError as error:
        assert "too few examples" in str(error)  # noqa: PT017  (most draws succeed; some keys hang together in too few bundles)
        return
    assert [len(part) for _, part in splits.named()] == [2, 1, 1, 1]
    homes: dict[str, set[str]] = {}
    for name, part in splits.named():
        for one in part:
            homes.setdefault(normalised(one.document), set()).add(name)
            if one.group is not None:
                homes.setdefault(one.group, set()).add(name)
    assert {len(names) for names in homes.values()} == {1}


def test_a_chain_of_shared_documents_and_groups_is_one_bundle() -> None:
    chain = [example(0, "a", "g"), example(1, "b", "g"), example(2, "B ", "h"), example(3, "c", "h")]
    with pytest.raises(
        InputError, match=r"^dev: too few examples: dev needs 1, 0 of 4 in the train pool are left after 1 for test "
    ):
        make_splits(chain, sizes=SplitSizes(train=1, micro_dev=1, dev=1, test=1), seed=0)


def test_given_pools_are_kept_apart_and_micro_dev_comes_from_the_rest_of_train() -> None:
    pools = [[example(n, name=name) for n in range(12)] for name in ("train", "dev", "test")]
    splits = make_splits(*pools, sizes=SplitSizes(train=8, micro_dev=4, dev=None, test=None), seed=0)
    assert {one[:-1].rstrip("1") for one in ids(splits.train) + ids(splits.micro_dev)} == {"train"}
    assert sorted(ids(splits.dev)) == sorted(ids(pools[1]))
    assert sorted(ids(splits.test)) == sorted(ids(pools[2]))


def test_micro_dev_comes_from_the_rest_of_dev_where_train_has_too_few() -> None:
    train, dev, test = ([example(n, name=name) for n in range(9)] for name in ("train", "dev", "test"))
    splits = make_splits(train, dev, test, sizes=SplitSizes(train=8, micro_dev=4, dev=5, test=6), seed=0)
    assert {one[:3] for one in ids(splits.micro_dev)} == {"dev"}
    assert not set(ids(splits.micro_dev)) & set(ids(splits.dev))
    assert len(splits.train) == 8


def test_a_document_in_two_given_pools_is_refused() -> None:
    train = [example(n, name="train") for n in range(8)]
    test = [example(n, train[n].document.upper().replace(" ", "\u00a0 "), name="test") for n in range(8)]
    with pytest.raises(
        InputError, match=r"train and test share a document: train has it in 'train(\d)', test in 'test\1'\. Remove it"
    ):
        make_splits(train, None, test, sizes=SplitSizes(train=None, micro_dev=2, dev=2, test=None), seed=0)


@pytest.mark.parametrize(
    ("kept", "other", "message"),
    [
        ("train", "micro_dev", "train and micro_dev share a document: train has it in 'e1', micro_dev in 'x1'"),
        ("micro_dev", "test", "micro_dev and test share a document: micro_dev has it in 'e2', test in 'x2'"),
        ("dev", "test", "dev and test share a document: dev has it in 'e3', test in 'x3'"),
    ],
)
def test_leaks_are_found_by_content_in_every_pair(kept: str, other: str, message: str) -> None:
    splits = Splits((example(1),), (example(2),), (example(3),), (example(4),))
    check_leaks(splits)
    (one,) = getattr(splits, kept)
    copy = replace(
        one, id=f"x{one.id[1:]}", prompt="another question", document=f"  {one.document.upper()}\n".replace("D", "\uff24")
    )
    with pytest.raises(InputError, match=message):
        check_leaks(replace(splits, **{other: (*getattr(splits, other), copy)}))


def test_a_shared_group_is_a_leak_too() -> None:
    splits = Splits((example(1, group="g"),), (example(2),), (example(3),), (example(4, group="g"),))
    with pytest.raises(InputError, match="train and test share a document"):
        check_leaks(splits)


def test_an_empty_split_is_named() -> None:
    with pytest.raises(InputError, match=r"^dev: the dev split is empty"):
        check_leaks(Splits((example(1),), (example(2),), (), (example(4),)))
    with pytest.raises(InputError, match=r"^test: the test split would be empty \(got 0\)"):
        SplitSizes(test=0)
    with pytest.raises(InputError, match=r"^test: too few examples: test needs 1, 0 of 0 in the test pool are left "):
        make_splits([example(1)], None, [], sizes=SplitSizes(test=None), seed=0)


def test_all_of_the_only_pool_cannot_be_the_test_split() -> None:
    with pytest.raises(InputError, match=r"^test: all of the train pool cannot be the test split"):
        make_splits([example(n) for n in range(20)], sizes=SplitSizes(test=None), seed=0)


def test_the_fingerprint_sees_content_and_order_but_not_ids() -> None:
    one, two = example(1), example(2)
    assert fingerprint([one, two]) == fingerprint([replace(one, id="other", group="g"), two])
    others = [
        [two, one],
        [one],
        [one, replace(two, target=" x")],
        [one, replace(two, references=("t2", "x"))],
        [one, replace(two, document="x")],
    ]
    assert len({fingerprint(part) for part in ([one, two], *others)}) == 6
