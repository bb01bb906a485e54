"""A search in the workshop: which loss it is told, and that what it found is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples

from pomona.adapters import Adapter, Factors
from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.errors import PomonaError
from pomona.runs.recipe import Data, Recipe, Source
from pomona.runs.store import RunStore
from pomona.runs.workshop import Workshop
from pomona.tuning.progress import Silent
from pomona.tuning.settings import FitData, Tuning

RECIPE = Recipe(
    data=Data(train="x.jsonl"), sources=(Source(name="a", adapter=Path("a")),), tuning=Tuning(batch_size=3, dropout=0.5)
)


class Notes(Silent):
    """A progress display that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def begin(self, stage: str, total: int) -> None:
        self.said.append((stage, total))

    def advance(self, done: int, note: str = "") -> None:
        self.said.append((done, note))

    def end(self, note: str = "") -> None:
        self.said.append((note,))


@pytest.fixture
def backbone() -> Backbone:
    return tiny_backbone()


def workshop(folder: Path, backbone: Backbone) -> Workshop:
    train = [*tiny_examples(5, seed=1), *tiny_examples(2, seed=4, completion=2)]
    data = FitData(train, tiny_examples(3, seed=2), tiny_examples(3, seed=3))
    resume = (folder / "run").exists()
    store = RunStore(folder / "run", RECIPE.yaml(), resume=resume)
    store.begin()
    return Workshop(RECIPE, backbone, data, store, Notes(), [])


def refuse(loss: Callable[[Adapter], float]) -> Adapter:
    raise AssertionError("searched again")


@torch.no_grad()
def mean_loss_per_token(backbone: Backbone, adapter: Adapter, data: FitData) -> float:
    """By the definition, an example at a time."""
    total, count = 0.0, 0
    with attached(backbone, [adapter]):
        for example in data.train:
            tokens = torch.tensor(example.tokens)
            logits = backbone.model(input_ids=tokens[None]).logits[0].double()
            first = example.completion_start
            total += float(F.cross_entropy(logits[first - 1 : -1], tokens[first:], reduction="sum"))
            count += len(tokens) - first
    return total / count


def test_the_loss_is_the_mean_over_the_training_completions_tokens(tmp_path: Path, backbone: Backbone) -> None:
    shop = workshop(tmp_path, backbone)
    tried = [tiny_adapter(backbone, seed=seed) for seed in (1, 2)]
    told: list[float] = []

    def find(loss: Callable[[Adapter], float]) -> Adapter:
        told.extend(map(loss, tried))
        return tried[1]

    shop.search("it", 2, find)
    assert told == pytest.approx([mean_loss_per_token(backbone, adapter, shop.data) for adapter in tried], rel=1e-5)
    assert told[0] != pytest.approx(told[1], rel=1e-3)


def test_what_was_found_is_kept_and_not_searched_again(tmp_path: Path, backbone: Backbone) -> None:
    shop = workshop(tmp_path, backbone)
    best = tiny_adapter(backbone, seed=1, scaling=1.0)

    def find(loss: Callable[[Adapter], float]) -> Adapter:
        loss(best)
        loss(best)
        return best

    found = shop.search("it", 2, find)
    assert found.fingerprint() == best.fingerprint()
    assert shop.trained["it"].tokens == 2 * sum(map(len, shop.data.train))
    assert shop.trained["it"].train_seconds > 0
    assert isinstance(shop.progress, Notes)
    stage, *steps, end = shop.progress.said
    assert stage == ("searching it", 2)
    assert steps == [(1, steps[0][1])] * 2
    assert str(steps[0][1]).startswith("loss ")
    assert str(end[0]).startswith("2 losses, the lowest ")
    again = workshop(tmp_path, backbone)
    assert again.search("it", 2, refuse).fingerprint() == found.fingerprint()
    assert again.trained["it"] == shop.trained["it"]
    assert again.progress.said == []  # pyright: ignore[reportAttributeAccessIssue]


def test_a_search_that_was_interrupted_begins_again(tmp_path: Path, backbone: Backbone) -> None:
    best = tiny_adapter(backbone, seed=1)
    asked: list[str] = []

    def broken(loss: Callable[[Adapter], float]) -> Adapter:
        loss(best)
        raise KeyboardInterrupt

    def whole(loss: Callable[[Adapter], float]) -> Adapter:
        asked.append("from the beginning")
        loss(best)
        return best

    before = {path: type(module) for path, module in backbone.model.named_modules()}
    with pytest.raises(KeyboardInterrupt):
        workshop(tmp_path, backbone).search("it", 2, broken)
    assert {path: type(module) for path, module in backbone.model.named_modules()} == before
    shop = workshop(tmp_path, backbone)
    shop.search("it", 2, whole)
    assert asked == ["from the beginning"]
    assert shop.trained["it"].tokens == sum(map(len, shop.data.train))


def test_a_loss_that_is_not_a_number_stops_it(tmp_path: Path, backbone: Backbone) -> None:
    good = tiny_adapter(backbone, seed=1)
    module = good.modules[1]  # of the values; a query that is not a number is masked out
    bad = Adapter({module: Factors(good[module].A * math.inf, good[module].B)})
    shop = workshop(tmp_path, backbone)
    with pytest.raises(PomonaError, match=r"^the training loss of it is not finite \(got nan\)\. Load the model in dtype float32"):
        shop.search("it", 1, lambda loss: [loss(bad), good][1])  # pyright: ignore[reportArgumentType, reportReturnType]
