"""Pruning of parts of single sources in a run: exact counts, every kind of controller, and the export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tuning.runs import RANKS, TUNING, events, train, two_adapters
from tests.tuning.test_granularity import Updates, assert_exports

from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, trainable_merges
from pomona.control import Bayes, Fixed, Grasp, Layerwise
from pomona.errors import InputError
from pomona.pruning import pruned_count
from pomona.tuning.settings import Fitted, Pruning

UNITS = {"source_layer": 2 * 2, "source_rank": 2 * 2 * sum(RANKS)}  # two adapters, two layers, q and v


def pruned_units(fitted: Fitted, granularity: str) -> int:
    """Counted from the shares that the run measured."""
    kept = fitted.kept_by_source
    if granularity == "source_rank":
        return sum(round((1 - share) * RANKS[k]) for own in kept.values() for k, share in enumerate(own) if share is not None)
    gone = {(path.split(".")[2], k) for path, own in kept.items() for k, share in enumerate(own) if share == 0.0}
    left = {(path.split(".")[2], k) for path, own in kept.items() for k, share in enumerate(own) if share != 0.0}
    assert not gone & left, "a source's part in a layer goes or stays as a whole"
    return len(gone)


@pytest.mark.parametrize("masks", ["merged", "adapter"])
@pytest.mark.parametrize("granularity", list(UNITS))
def test_the_counts_are_exact_and_the_export_makes_the_same_update(llama: Backbone, granularity: Any, masks: Any) -> None:
    seen = Updates()
    pruning = Pruning(granularity=granularity, masks=masks)
    fitted = train(llama, look=seen, pruning=pruning, controller=Fixed(0.5))
    assert pruned_units(fitted, granularity) == UNITS[granularity] // 2
    assert_exports(fitted, seen.of_epoch[fitted.epoch])
    kept = fitted.kept_by_source
    left = {path: round(sum((share or 0) * R for share, R in zip(own, RANKS, strict=True))) for path, own in kept.items()}
    assert {path: one.rank for path, one in fitted.adapter.factors.items()} == {path: rank for path, rank in left.items() if rank}
    if masks == "adapter":
        for k, rank in enumerate(RANKS):
            lost = sum((1 - (own[k] or 0)) * rank for own in kept.values())
            assert lost == pytest.approx(4 * rank / 2)


@pytest.mark.parametrize(
    "controller", [Grasp(interval_steps=1, commit_level=0), Bayes(interval_steps=1), Layerwise(interval_steps=1, groups=2)]
)
@pytest.mark.parametrize("granularity", list(UNITS))
def test_controllers_that_learn_the_ratio(llama: Backbone, granularity: Any, controller: Any) -> None:
    fitted = train(llama, pruning=Pruning(granularity=granularity), controller=controller)
    assert events(fitted, "round")
    assert fitted.answer is not None
    counts = [UNITS[granularity]] if len(fitted.answer.ratios) == 1 else [UNITS[granularity] // 2] * 2
    if granularity == "source_rank":  # each source its own share
        counts = [count * rank // sum(RANKS) for count in counts for rank in RANKS]
    ratios = [ratio for ratio in fitted.answer.ratios for _ in range(len(counts) // len(fitted.answer.ratios))]
    expected = sum(pruned_count(ratio, count) for ratio, count in zip(ratios, counts, strict=True))
    assert pruned_units(fitted, granularity) == expected


def test_a_source_of_small_weight_leaves_every_layer(llama: Backbone) -> None:
    fitted = train(llama, weights=[1.0, 1e-3], pruning=Pruning(granularity="source_layer"), controller=Fixed(0.5))
    assert all(own == [1.0, 0.0] for own in fitted.kept_by_source.values())


def test_frozen_sources_are_no_units(llama: Backbone) -> None:
    fitted = train(llama, how=Concat(frozen=frozenset({0})), pruning=Pruning(granularity="source_layer"), controller=Fixed(1.0))
    frozen = two_adapters(llama)[0]
    assert all(own == [None, 0.0] for own in fitted.kept_by_source.values())
    for path in frozen:
        torch.testing.assert_close(fitted.adapter[path].delta(), frozen[path].delta(), atol=1e-6, rtol=1e-5)


def test_reset_to_the_start_keeps_the_components(llama: Backbone) -> None:
    fitted = train(llama, pruning=Pruning(granularity="source_rank", reset="initial"), controller=Fixed(0.5))
    assert fitted.kept_by_source == {}
    start = torch.cat([one[path := fitted.adapter.modules[0]].A for one in two_adapters(llama)])
    assert 0 < int((start == fitted.adapter[path].A).all(dim=1).sum()) <= sum(RANKS)


@pytest.mark.parametrize("how", [name for name in trainable_merges if not trainable_merges[name].module.keeps_apart])
@pytest.mark.parametrize("granularity", list(UNITS))
def test_a_merge_that_mixes_the_sources_is_refused(llama: Backbone, how: str, granularity: Any) -> None:
    with pytest.raises(InputError, match=rf"pruning\.granularity: prunes parts of single sources.*{granularity}"):
        train(llama, how=trainable_merges.create(how), tuning=TUNING, pruning=Pruning(granularity=granularity))
