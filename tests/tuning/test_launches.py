"""Kernel launches and synchronisations of a training step, counted on a pretended device, by the number of layers."""

from __future__ import annotations

from functools import cache

import pytest
from tests.tuning.launches import ALL_LINEAR, Q_AND_V, measured

from pomona.pruning import lowest
from pomona.tuning.settings import Pruning

FEW, MORE = 2, 4
BOUND = 1.15


@cache
def plain(layers: int, targets: tuple[str, ...]) -> int:
    """Launches of a step without pruning."""
    counts = measured(layers, None, targets=targets).settled
    assert counts.waits == {}
    return counts.kernels


def pruned(layers: int, targets: tuple[str, ...], pruning: Pruning) -> int:
    """Launches of a settled step with pruning, in which nothing is waited for."""
    counts = measured(layers, pruning, targets=targets).settled
    assert counts.waits == {}
    return counts.kernels


def at(layers: int, few: int, more: int) -> float:
    """The launches of so many layers, from those of `FEW` and `MORE`: each layer adds as much as the one before it."""
    return few + (more - few) / (MORE - FEW) * (layers - FEW)


@pytest.mark.parametrize(
    ("targets", "pruning", "bits"),
    [
        (Q_AND_V, Pruning(), False),
        (ALL_LINEAR, Pruning(), False),
        (ALL_LINEAR, Pruning(scope="global"), True),
        (Q_AND_V, Pruning(scope="layer", feedback="always"), False),
        (Q_AND_V, Pruning(granularity="rank", scope="global"), False),
    ],
    ids=["q and v", "all linear", "global", "layers with feedback", "components"],
)
def test_a_settled_step_waits_for_nothing_and_launches_little_more_than_one_without_pruning(
    monkeypatch: pytest.MonkeyPatch, targets: tuple[str, ...], pruning: Pruning, bits: bool
) -> None:
    if bits:
        monkeypatch.setattr(lowest, "LONG", 0)  # the search of very long vectors
    without = [plain(layers, targets) for layers in (FEW, MORE)]
    found = [pruned(layers, targets, pruning) for layers in (FEW, MORE)]
    assert min(found) > min(without)
    for layers in (32, 80):
        assert at(layers, *found) <= BOUND * at(layers, *without)
