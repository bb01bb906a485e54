from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.real_data import DATA

from pomona.data import Example, Splits, SplitSizes, check_leaks, fingerprint, make_splits, read_rows
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


PROSE = "Pears ripen late in the year, long after the plums have gone and the first frost has come to the orchard"


def near_example(number: int, name: str = "e") -> Example:
    """Three quarters of the text are the same for all; no two are equal."""
    return example(number, f"{PROSE} {name} {number} {' '.join(chr(0x4E00 + 50 * number + k) for k in range(12))}", name=name)


def test_a_near_duplicate_of_another_split_is_left_out() -> None:
    pool = [example(n) for n in range(40)]
    pool[:2] = [replace(pool[0], document=f"{PROSE} at first"), replace(pool[1], document=f"at last {PROSE}")]
    parted = 0
    for seed in range(20):
        splits, plain = (make_splits(pool, sizes=SIZES, seed=seed, near_duplicates=near) for near in (True, False))
        check_leaks(splits)
        homes, plain_homes = (
            {name for name, part in one.named() for drawn in part if PROSE in drawn.document} for one in (splits, plain)
        )
        assert len(homes) <= 1
        parted += len(plain_homes) > 1
        assert len(plain_homes) > 1 or replace(splits, micro_dev=plain.micro_dev) == plain
    assert 0 < parted < 20


def test_too_few_are_left_where_all_are_near_duplicates() -> None:
    pool = [near_example(n) for n in range(30)]
    with pytest.raises(
        InputError,
        match=r"dev needs 5, 0 of 30 in the train pool are left after 6 for test and 24 near-duplicates of them \(got 5\)",
    ):
        make_splits(pool, sizes=SIZES, seed=0)
    splits = make_splits(pool, sizes=SIZES, seed=0, near_duplicates=False)
    assert [len(part) for _, part in splits.named()] == [8, 4, 5, 6]


def test_a_near_duplicate_in_two_given_pools_is_refused_with_both_ids_and_the_share() -> None:
    train, dev, test = ([example(n, name=name) for n in range(12)] for name in ("train", "dev", "test"))
    test[3] = replace(test[3], document=f"{PROSE} at last")
    train = [replace(one, document=f"{PROSE} {chr(0x4E00 + n) * 40}") if n == 5 else one for n, one in enumerate(train)]
    sizes = SplitSizes(train=8, micro_dev=4, dev=None, test=None)
    runs, common = len(f"{PROSE} at last") - 23, len(PROSE) + 1 - 23
    with pytest.raises(
        InputError,
        match=r"^(train|micro_dev) and test have nearly the same document: 'train5' in (train|micro_dev) and 'test3' in test "
        rf"have {common / runs:.0%} of the shorter one in common\. Remove one, .* or set data\.near_duplicates to allow\.$",
    ):
        make_splits(train, dev, test, sizes=sizes, seed=0)
    splits = make_splits(train, dev, test, sizes=sizes, seed=0, near_duplicates=False)
    with pytest.raises(InputError, match="test have nearly the same document"):
        check_leaks(splits)
    check_leaks(splits, near_duplicates=False)


def test_micro_dev_comes_from_dev_where_near_duplicates_leave_too_few_in_train() -> None:
    """12 rows would do for 8 and 4; as 10 of them are near to one another, both splits cannot be drawn from them."""
    train = [*(near_example(n, "train") for n in range(10)), *(example(n, name="train") for n in range(20, 22))]
    dev, test = ([example(n, name=name) for n in range(12)] for name in ("dev", "test"))
    sizes = SplitSizes(train=8, micro_dev=4, dev=5, test=None)
    splits = make_splits(train, dev, test, sizes=sizes, seed=0)
    assert {one.id[:3] for one in splits.micro_dev} == {"dev"}
    assert [len(part) for _, part in splits.named()] == [8, 4, 5, 12]
    check_leaks(splits)
    assert {one.id[:3] for one in make_splits(train, dev, test, sizes=sizes, seed=0, near_duplicates=False).micro_dev} == {"tra"}


@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=6, max_size=20),
    seed=st.integers(0, 1000),
)
def test_whatever_is_drawn_passes_the_leak_check_and_what_passes_is_drawn(keys: list[tuple[int, int]], seed: int) -> None:
    halves = [PROSE[n * 20 : n * 20 + 40] for n in range(4)]
    pool = [example(n, f"{halves[half]} {n}" if near else f"own {n}") for n, (half, near) in enumerate(keys)]
    sizes = SplitSizes(train=2, micro_dev=1, dev=1, test=2)
    plain = make_splits(pool, sizes=sizes, seed=seed, near_duplicates=False)
    try:
        splits = make_splits(pool, sizes=sizes, seed=seed)
    except InputError as error:
        assert "too few examples" in str(error)  # noqa: PT017  (where most are near to one another)
        with pytest.raises(InputError, match="nearly the same"):
            check_leaks(plain)
        return
    check_leaks(splits)
    if replace(splits, micro_dev=plain.micro_dev) != plain:  # micro dev also leaves out near-duplicates of what train might draw
        with pytest.raises(InputError, match="nearly the same"):
            check_leaks(plain)


def drawn_of_each_size(pool: Sequence[Example], seed: int, grow: str, most: int, near: bool = True) -> list[Splits]:
    """The splits with 1, 2 .. `most` examples of one split, one each of the others."""
    ones = SplitSizes(train=1, micro_dev=1, dev=1, test=1)
    return [make_splits(pool, sizes=replace(ones, **{grow: size}), seed=seed, near_duplicates=near) for size in range(1, most + 1)]


def tangled_pool(marks: Sequence[int]) -> list[Example]:
    """20 examples of their own, and one a mark: some of these share a group, and some are near to another."""
    halves = [PROSE[n * 20 : n * 20 + 40] for n in range(3)]
    marked = [
        example(n, f"{halves[mark]} {n}" if mark < 3 else f"marked {n}", f"g{n // 3}" if mark % 2 else None)
        for n, mark in enumerate(marks)
    ]
    return [*marked, *(example(n, name="own") for n in range(20))]


MARKS = st.lists(st.integers(0, 12), min_size=5, max_size=25)


@settings(max_examples=25, deadline=None)
@given(marks=MARKS, seed=st.integers(0, 1000), near=st.booleans())
def test_train_and_micro_dev_are_nested_and_neither_moves_the_other(marks: list[int], seed: int, near: bool) -> None:
    pool = tangled_pool(marks)
    trains, micro_devs = (drawn_of_each_size(pool, seed, name, 6, near) for name in ("train", "micro_dev"))
    for splits in (*trains, *micro_devs):
        check_leaks(splits, near)
    assert all(one.train == trains[-1].train[: len(one.train)] for one in trains)
    assert all(one.micro_dev == micro_devs[-1].micro_dev[: len(one.micro_dev)] for one in micro_devs)
    assert len({(one.micro_dev, one.dev, one.test) for one in trains}) == 1
    assert len({(one.train, one.dev, one.test) for one in micro_devs}) == 1


@settings(max_examples=25, deadline=None)
@given(marks=MARKS, seed=st.integers(0, 1000))
def test_all_that_micro_dev_leaves_is_for_train_where_train_has_no_number(marks: list[int], seed: int) -> None:
    counted, rest = (
        make_splits(tangled_pool(marks), sizes=SplitSizes(train=train, micro_dev=3, dev=1, test=1), seed=seed)
        for train in (4, None)
    )
    check_leaks(rest)
    assert replace(rest, train=()) == replace(counted, train=())
    assert rest.train[:4] == counted.train


def test_sixteen_micro_dev_examples_leave_train_the_fifty_that_four_leave() -> None:
    pool = [example(n) for n in range(300)]
    found = {
        size: make_splits(pool, sizes=SplitSizes(train=50, micro_dev=size, dev=50, test=100), seed=1) for size in (4, 8, 16, 32)
    }
    assert len({one.train for one in found.values()}) == 1
    assert all(one.micro_dev == found[32].micro_dev[:size] for size, one in found.items())


def test_of_near_duplicates_micro_dev_leaves_all_but_the_front_one_to_train() -> None:
    """Of 40 rows, half are near to one another: 19 of them may not be micro dev's, however few train draws."""
    pool = [near_example(n) if n % 2 else example(n) for n in range(40)]
    for seed in range(5):
        splits = make_splits(pool, sizes=SplitSizes(train=1, micro_dev=12, dev=1, test=1), seed=seed)
        assert sum(PROSE in one.document for one in splits.micro_dev) <= 1


def test_where_the_pool_is_too_small_train_yields_to_micro_dev() -> None:
    """Three pairs: the front ones leave train nothing; one whole pair and one of another leave it a pair."""
    pairs = [example(2 * n + k, f"{PROSE[n * 30 : n * 30 + 30]} {k}", name=f"pair{n}-") for n in range(3) for k in range(2)]
    dev, test = ([example(n, name=name) for n in range(6)] for name in ("dev", "test"))
    homes: set[str] = set()
    for seed in range(12):
        splits = make_splits(pairs, dev, test, sizes=SplitSizes(train=2, micro_dev=3, dev=1, test=None), seed=seed)
        check_leaks(splits)
        named = [one.id[:5] for one in splits.micro_dev]
        homes.add(named[0][:3])
        if named[0].startswith("pair"):
            assert len(set(named)) == 2
            assert {one.id[:5] for one in splits.train} == {"pair0", "pair1", "pair2"} - set(named)
    assert homes == {"pai", "dev"}


@pytest.mark.parametrize(
    "name",
    ["scitldr/en", "scitldr_title/en", "csl_title/zh", "xquad/ar", "xquad/zh", "jsquad/ja", "tydiqa_goldp/ar", "e2e_nlg/en"],
)
def test_real_sets_that_were_made_apart_pass_and_structured_inputs_do_not(name: str) -> None:
    pools: list[tuple[Example, ...]] = []
    for split in ("train", "dev", "test"):
        rows = [row.fields for row in read_rows(DATA / name / f"{split}.jsonl")]
        documents = [next(str(row[key]) for key in ("document", "context", "input") if key in row) for row in rows]
        pools.append(tuple(example(number, document, name=split) for number, document in enumerate(documents)))
    train, dev, test = pools
    splits = Splits(train, (example(0, "a text of its own"),), dev, test)
    check_leaks(splits, near_duplicates=False)
    if name == "e2e_nlg/en":
        with pytest.raises(InputError, match="have nearly the same document"):
            check_leaks(splits)
    else:
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
