"""Every trainable merge: whose entries are pruned, and how many, whatever the adapters weigh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_backbone
from torch import Tensor

from pomona.backbone.attach import Attachment, attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import trainable_merges
from pomona.importance import Magnitude
from pomona.pruning import pruned_count
from pomona.tuning.live_masks import LiveMasks
from pomona.tuning.settings import Pruning
from pomona.tuning.statistics import Statistics

RANKS = (2, 3)
WEIGHTS = [(1.0, 1.0), (1.0, 0.3), (-0.02, 5.0)]
RATIO = 0.37


@pytest.fixture(scope="module")
def llama() -> Backbone:
    return tiny_backbone("llama")


def own_masks(attachment: Attachment, masks: Mapping[str, Tensor]) -> dict[tuple[str, int, str], Tensor]:
    """(module, adapter, side) -> its mask."""
    return {
        (path, place, side): mask.clone()
        for path, layer in attachment.layers.items()
        for place, pair in layer.parts(masks[f"{path}.A"], masks[f"{path}.B"]).items()
        for side, mask in zip("AB", pair, strict=True)
    }


def selected(backbone: Backbone, combine: Any, weights: tuple[float, float], pruning: Pruning) -> tuple[Any, dict[str, Tensor]]:
    """The masks in force for each adapter at `RATIO`, where they can be told apart, and the merged factors under them."""
    adapters = [tiny_adapter(backbone, seed=k, rank=rank, scaling=1.0 + k) for k, rank in enumerate(RANKS)]
    with attached(backbone, adapters, list(weights), how=trainable_merges[combine]()) as attachment:
        optimizer = torch.optim.AdamW(attachment.parameters().values())
        live = LiveMasks(attachment, pruning, Statistics(attachment, pruning, [], 1), optimizer)
        masks = live.select(live.scores(), RATIO)
        changed = live.hold(masks)
        factors = {f"{path}.{side}": getattr(layer.effective(), side) for path, layer in attachment.layers.items() for side in "AB"}
        zeros = {name: parameter.detach() == 0 for name, parameter in attachment.parameters().items()}
        found = own_masks(attachment, zeros)
        assert changed.changed == changed.newly_pruned == pytest.approx(RATIO, abs=0.02)
        return found, factors


@pytest.mark.parametrize("combine", trainable_merges)
def test_masks_by_adapter_take_the_same_share_of_each_whatever_it_weighs(llama: Backbone, combine: Any) -> None:
    pruning, first = Pruning(Magnitude(), masks="adapter"), None
    for weights in WEIGHTS:
        found, _ = selected(llama, combine, weights, pruning)
        assert {place for _, place, _ in found} == {0, 1}
        for (_, place, _), mask in found.items():
            assert RANKS[place] in mask.shape
            assert int(mask.sum()) == pruned_count(RATIO, mask.numel())
        first = first or found
        assert all(torch.equal(mask, first[key]) for key, mask in found.items())


@pytest.mark.parametrize("combine", trainable_merges)
def test_masks_of_the_merged_factors_take_the_share_of_these(llama: Backbone, combine: Any) -> None:
    for weights in WEIGHTS:
        _, factors = selected(llama, combine, weights, Pruning(Magnitude(), masks="merged"))
        assert all(int((side == 0).sum()) == pruned_count(RATIO, side.numel()) for side in factors.values())


def test_by_default_adapters_side_by_side_have_quotas_and_sums_have_one_mask(llama: Backbone) -> None:
    for combine, masks in (("concat", "adapter"), ("linear", "merged")):
        by_default, _ = selected(llama, combine, WEIGHTS[1], Pruning(Magnitude()))
        expected, _ = selected(llama, combine, WEIGHTS[1], Pruning(Magnitude(), masks=masks))  # pyright: ignore[reportArgumentType]
        assert all(torch.equal(mask, expected[key]) for key, mask in by_default.items())


def test_one_mask_over_adapters_side_by_side_takes_by_weight(llama: Backbone) -> None:
    """Why it is not the default: A, which carries the weight, loses nearly all of its lost entries from the light adapter."""
    found, _ = selected(llama, "concat", WEIGHTS[1], Pruning(Magnitude(), masks="merged"))
    shares = [
        float(torch.cat([mask.flatten() for (_, place, side), mask in found.items() if (place, side) == (k, "A")]).double().mean())
        for k in (0, 1)
    ]
    assert shares[0] < 0.3 < 0.42 < shares[1]


@pytest.mark.parametrize("combine", trainable_merges)
def test_what_each_adapter_brings_in_makes_the_merge(llama: Backbone, combine: Any) -> None:
    """With scalings and weights: beside each other, or summed over the components that each has."""
    adapters = [tiny_adapter(llama, seed=k, rank=rank, scaling=1.0 + k) for k, rank in enumerate(RANKS)]
    with attached(llama, adapters, [1.0, -0.3], how=trainable_merges[combine]()) as attachment:
        for layer in attachment.layers.values():
            own, whole = layer.own_factors(layer.A, layer.B), layer.effective()
            assert [own[place].rank for place in (0, 1)] == list(RANKS)
            if layer.keeps_apart:
                A, B = torch.cat([own[0].A, own[1].A]), torch.cat([own[0].B, own[1].B], dim=1)
            else:
                A, B = own[1].A.clone(), own[1].B.clone()
                A[: RANKS[0]] += own[0].A
                B[:, : RANKS[0]] += own[0].B
            torch.testing.assert_close(A, whole.A)
            torch.testing.assert_close(B, whole.B)
