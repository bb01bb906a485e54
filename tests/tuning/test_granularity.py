"""Whole components and modules: what is exported is smaller, and the same update."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter
from tests.tuning.runs import RANKS, STEPS, events, train, two_adapters

from pomona.adapters import read_adapter, write_adapter
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import trainable_merges
from pomona.control import Fixed
from pomona.importance import Magnitude
from pomona.tuning.settings import Event, Fitted, Pruning, Sparsity


class Updates:
    """Each epoch's update by module, as the model computes it: what a unit vector adds to the module's output."""

    def __init__(self) -> None:
        self.of_epoch: dict[Any, dict[str, torch.Tensor]] = {}

    def __call__(self, event: Event, attachment: Attachment) -> None:
        if event["kind"] == "epoch":
            self.of_epoch[event["epoch"]] = updates(attachment)


@torch.no_grad()
def updates(attachment: Attachment) -> dict[str, torch.Tensor]:
    found = {}
    for path, module in attachment.modules.items():
        weight = module.base.weight
        assert isinstance(weight, torch.Tensor)
        units = torch.eye(weight.shape[1])
        found[path] = (module(units) - module.base(units)).T
    return found


def assert_exports(fitted: Fitted, expected: dict[str, torch.Tensor]) -> None:
    """The adapter makes the same update, a module that it lacks none."""
    for path, update in expected.items():
        exported = fitted.adapter[path].delta() if path in fitted.adapter else torch.zeros_like(update)
        torch.testing.assert_close(exported, update, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("combine", ["concat", "linear"])
@pytest.mark.parametrize("prune_ratio", [0.3, 0.5, 0.8])
def test_rank_pruning_exports_an_adapter_of_the_rank_that_is_left(llama: Backbone, combine: Any, prune_ratio: float) -> None:
    seen = Updates()
    how = trainable_merges[combine]()
    fitted = train(llama, how=how, look=seen, pruning=Pruning(granularity="rank"), controller=Fixed(prune_ratio))
    R = sum(RANKS) if combine == "concat" else max(RANKS)
    gone = math.floor(prune_ratio * R + 1e-9)
    assert {path: fitted.adapter[path].rank for path in fitted.adapter} == dict.fromkeys(two_adapters(llama)[0], R - gone)
    assert_exports(fitted, seen.of_epoch[fitted.epoch])
    assert all((fitted.adapter[path].delta() != 0).any() for path in fitted.adapter)
    for path, sparsity in fitted.sparsity.items():  # before anything was left out
        O, I = llama.shapes()[path]  # noqa: E741
        assert sparsity == pytest.approx(Sparsity(gone / R, gone / R, R * I, O * R))
    assert len(events(fitted, "step")) == STEPS


def test_what_rank_pruning_leaves_is_smaller_on_disk(llama: Backbone, tmp_path: Path) -> None:
    sizes = []
    for prune_ratio in (0.0, 0.6):
        fitted = train(llama, pruning=Pruning(granularity="rank"), controller=Fixed(prune_ratio))
        folder = tmp_path / str(prune_ratio)
        write_adapter(fitted.adapter, folder)
        sizes.append((folder / "adapter_model.safetensors").stat().st_size)
        back = read_adapter(folder)
        assert {back[path].rank for path in back} == {5 if prune_ratio == 0 else 2}
        for path in fitted.adapter:
            torch.testing.assert_close(back[path].delta(), fitted.adapter[path].delta(), atol=1e-6, rtol=1e-5)
    numbers = sum((5 - 2) * sum(llama.shapes()[path]) * 4 for path in two_adapters(llama)[0])
    assert sizes[0] - sizes[1] >= 0.9 * numbers


@pytest.mark.parametrize(("scope", "gone"), [("global", 2), ("layer", 2)])
def test_module_pruning_leaves_modules_out(llama: Backbone, scope: Any, gone: int) -> None:
    """Six modules in two layers, of which floor(0.4 * 6), or floor(0.4 * 3) of each layer, go whole."""
    adapters = [tiny_adapter(llama, seed=1, rank=2, targets=("q_proj", "v_proj", "down_proj"))]
    seen = Updates()
    pruning = Pruning(granularity="module", scope=scope)
    fitted = train(llama, adapters=adapters, look=seen, pruning=pruning, controller=Fixed(0.4))
    left = set(fitted.adapter)
    assert len(left) == 6 - gone
    assert left < set(adapters[0])
    expected = seen.of_epoch[fitted.epoch]
    for path in set(adapters[0]) - left:
        assert not expected[path].any()
        assert fitted.sparsity[path][:2] == (1.0, 1.0)
    for path in left:
        assert fitted.sparsity[path][:2] == (0.0, 0.0)
        assert fitted.adapter[path].rank == 2
    assert_exports(fitted, expected)
    if scope == "layer":
        assert len({path.split(".")[2] for path in set(adapters[0]) - left}) == 2


@pytest.mark.parametrize("granularity", ["rank", "module"])
def test_where_all_is_pruned_one_zero_component_is_left(llama: Backbone, granularity: Any) -> None:
    fitted = train(llama, pruning=Pruning(Magnitude(), granularity=granularity), controller=Fixed(1.0))
    assert len(fitted.adapter) == 1
    assert all(not fitted.adapter[path].delta().any() and fitted.adapter[path].rank == 1 for path in fitted.adapter)


def test_components_that_go_back_to_where_they_began_stay_in_the_adapter(llama: Backbone) -> None:
    start = two_adapters(llama)
    fitted = train(llama, adapters=start, pruning=Pruning(granularity="rank", reset="initial"), controller=Fixed(0.4))
    for path in fitted.adapter:
        given = torch.cat([adapter[path].A for adapter in start])
        assert fitted.adapter[path].rank == 5
        assert int((given == fitted.adapter[path].A).all(dim=1).sum()) == 2
        assert fitted.sparsity[path][:2] == (0.0, 0.0)


@pytest.mark.parametrize("combine", ["concat", "linear"])
def test_frozen_components_are_not_pruned_and_stay(llama: Backbone, combine: Any) -> None:
    seen = Updates()
    how = trainable_merges[combine](frozen=frozenset({0}))
    fitted = train(llama, how=how, look=seen, pruning=Pruning(granularity="rank"), controller=Fixed(1.0))
    frozen = two_adapters(llama)[0]
    for path in frozen:
        expected = frozen[path].delta()
        torch.testing.assert_close(fitted.adapter[path].delta(), expected, atol=1e-6, rtol=1e-5)
        assert fitted.adapter[path].rank == RANKS[0]
        assert fitted.sparsity[path][:2] == (1.0, 1.0)
    assert_exports(fitted, seen.of_epoch[fitted.epoch])


def test_the_pruned_model_is_that_of_the_smaller_adapter(llama: Backbone) -> None:
    tokens = torch.arange(3, 15)[None]
    logits: dict[Any, torch.Tensor] = {}

    def look(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "epoch":
            with torch.no_grad():
                logits[event["epoch"]] = llama.model(input_ids=tokens).logits

    fitted = train(llama, look=look, pruning=Pruning(granularity="rank", scope="global"), controller=Fixed(0.5))
    assert len({fitted.adapter[path].rank for path in fitted.adapter}) > 1
    with attached(llama, [fitted.adapter]), torch.no_grad():
        torch.testing.assert_close(llama.model(input_ids=tokens).logits, logits[fitted.epoch], atol=1e-4, rtol=1e-5)
