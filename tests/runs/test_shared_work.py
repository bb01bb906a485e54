"""Work that runs share: one test split for every seed without a leak, and nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.end_to_end.setting import inside, make_setting, recipe, rows, write_rows

from pomona.data import Example, Splits
from pomona.data.leaks import check_leaks
from pomona.errors import InputError
from pomona.runs import encoding
from pomona.runs import shared_work as shared
from pomona.runs import sources as inputs
from pomona.runs.examples import read_splits
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Recipe
from pomona.runs.shared_work import SharedWork
from pomona.tuning.progress import Silent

POOLS: dict[str, dict[str, Any]] = {
    "one pool": {"train": "data.jsonl"},
    "own test": {"train": "data.jsonl", "test": "test.jsonl", "near_duplicates": "allow"},
    "own dev and test": {"train": "data.jsonl", "dev": "dev.jsonl", "test": "test.jsonl", "near_duplicates": "allow"},
    "groups": {"train": "grouped.jsonl", "columns": {"group": "of"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("shared"))
    write_rows(folder / "test.jsonl", rows(20, first=200))
    write_rows(folder / "dev.jsonl", rows(12, first=300))
    write_rows(folder / "grouped.jsonl", [row | {"of": f"g{place // 4}"} for place, row in enumerate(rows(90))])
    return folder


def a_recipe(**changes: Any) -> Recipe:
    return parse_recipe(json.loads(json.dumps(recipe(**changes))), Recipe)


def documents(examples: tuple[Example, ...]) -> list[str]:
    return [example.document for example in examples]


def groups(splits: Splits) -> dict[str, set[str | None]]:
    return {name: {example.group for example in part} for name, part in splits.named()}


@pytest.mark.parametrize("data", POOLS.values(), ids=list(POOLS))
def test_every_seed_has_the_test_split_of_one_and_draws_the_rest_itself(folder: Path, data: dict[str, Any]) -> None:
    with inside(folder):
        found = {seed: SharedWork(5).splits(a_recipe(data=data, seed=seed)) for seed in (5, 6, 7)}
        alone = {seed: read_splits(a_recipe(data=data, seed=seed)) for seed in (5, 6)}
    assert found[5] == alone[5]
    assert documents(found[6].test) != documents(alone[6].test)
    for seed in (6, 7):
        assert found[seed].test == found[5].test
        assert documents(found[seed].train) != documents(found[5].train)
        check_leaks(found[seed], near_duplicates="near_duplicates" not in data)
        assert [len(part) for _, part in found[seed].named()] == [24, 6, 4, 6]
        if "columns" in data:
            parts = groups(found[seed])
            assert not parts["test"] & (parts["train"] | parts["dev"] | parts["micro_dev"])


def test_a_smaller_training_split_is_the_beginning_of_a_larger_one(folder: Path) -> None:
    sizes = {"micro_dev": 6, "dev": 4, "test": 6}
    with inside(folder):
        few, many = (SharedWork(0).splits(a_recipe(seed=1, splits={"train": count, **sizes})) for count in (8, 24))
    assert few.train == many.train[:8]
    assert (few.dev, few.micro_dev, few.test) == (many.dev, many.micro_dev, many.test)


def test_the_rest_of_a_group_that_the_test_split_began_is_left_out(folder: Path) -> None:
    """Six test examples are one group of four and half of another; training takes all that is left, which is not the other half."""
    sizes = {"train": None, "micro_dev": 6, "dev": 4, "test": 6}
    with inside(folder):
        splits = SharedWork(0).splits(a_recipe(data=POOLS["groups"], seed=1, splits=sizes))
    parts = groups(splits)
    assert len(parts["test"]) == 2
    assert not parts["test"] & parts["train"]
    assert len(splits.train) >= 90 - 8 - 8 - 8


def test_near_duplicates_of_test_examples_stay_out(folder: Path) -> None:
    """Each text of 40 comes twice, nearly alike; whichever seed draws the rest, no text stands on both sides."""
    texts = [" ".join(f"{word}{number}" for word in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")) for number in range(40)]
    twice = [text + end for text in texts for end in (" once", " again")]
    write_rows(folder / "twice.jsonl", [{"id": f"r{n}", "document": text, "summary": "s"} for n, text in enumerate(twice)])
    with inside(folder):
        for seed in range(4):
            splits = SharedWork(0).splits(a_recipe(data={"train": "twice.jsonl"}, seed=seed))
            check_leaks(splits)
            tested = {document.rpartition(" ")[0] for document in documents(splits.test)}
            assert not tested & {document.rpartition(" ")[0] for document in documents(splits.train)}


def test_a_document_in_two_pools_is_refused_under_every_seed(folder: Path) -> None:
    write_rows(folder / "leaky.jsonl", rows(6, first=0))
    changes = {"data": {"train": "data.jsonl", "test": "leaky.jsonl"}, "splits": {"train": 30, "micro_dev": 4, "dev": 4, "test": 6}}
    with inside(folder):
        for seed in (0, 1):
            with pytest.raises(InputError, match="share a document"):
                SharedWork(0).splits(a_recipe(seed=seed, **changes))


def test_too_few_examples_and_no_size_are_refused_under_another_seed_too(folder: Path) -> None:
    with inside(folder):
        with pytest.raises(InputError, match="too few examples: train needs 240"):
            SharedWork(0).splits(a_recipe(seed=1, splits={"train": 240, "micro_dev": 6, "dev": 4, "test": 6}))
        with pytest.raises(InputError, match="all of the train pool cannot be the test split"):
            SharedWork(0).splits(a_recipe(seed=1, splits={"train": 24, "micro_dev": 6, "dev": 4, "test": None}))


def test_nothing_is_done_twice(folder: Path) -> None:
    both = SharedWork(0)
    trained = {"name": "gamma", "data": {"train": "source.jsonl"}, "tuning": {"epochs": 1}, "weight": 2.0}
    sources = [{"name": "alpha", "adapter": "adapters/alpha"}, trained]
    with (
        inside(folder),
        mock.patch.object(shared, "load_backbone", wraps=shared.load_backbone) as loads,
        mock.patch.object(shared, "read_splits", wraps=shared.read_splits) as reads,
        mock.patch.object(encoding, "encode", wraps=encoding.encode) as encodes,
        mock.patch.object(shared, "check_sources", wraps=shared.check_sources) as checks,
        mock.patch.object(shared, "prepare_source", wraps=shared.prepare_source) as prepares,
        mock.patch.object(inputs, "train_plain", wraps=inputs.train_plain) as trains,
    ):
        for prune_ratio in (0.1, 0.4):
            for weight in (1.0, 0.5):
                sources[0]["weight"] = weight
                one = a_recipe(sources=sources, controller={"name": "fixed", "prune_ratio": prune_ratio})
                both.splits(one)
                both.encoded(one)
                both.checked(one)
                made = [both.source(source, one, Silent()) for source in one.sources]
                assert [source.weight for source in made] == [weight, 2.0]
                assert [source.name for source in made] == ["alpha", "gamma"]
                assert both.fingerprint(made[0].adapter) == made[0].adapter.fingerprint()
        assert [one.call_count for one in (loads, reads, prepares, trains)] == [1, 1, 2, 1]
        assert encodes.call_count == 4 + 2  # of the four splits, and of the source, once for each look at it
        assert checks.call_count == 2  # one for each weight
        other = a_recipe(sources=sources, seed=1)
        assert [both.source(source, other, Silent()).name for source in other.sources] == ["alpha", "gamma"]
        assert trains.call_count == 2
        assert prepares.call_count == 3


def test_another_model_another_length_or_other_data_are_other_work(folder: Path) -> None:
    both = SharedWork()
    with inside(folder):
        one = a_recipe()
        model = both.backbone(one)
        longer = both.encoded(a_recipe(tuning={"max_tokens": 14}, task={"name": "summarization", "max_new_tokens": 2}))
        assert max(map(len, longer.data.train)) <= 14 < max(map(len, both.encoded(one).data.train))
        assert both.backbone(one) is model
        assert both.backbone(a_recipe(dtype="bfloat16")) is not model
        assert both.splits(a_recipe(seed=1)) != both.splits(one)
