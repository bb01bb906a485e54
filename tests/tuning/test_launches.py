"""Kernel launches and synchronisations of a training step, counted on a pretended device, by the number of layers."""

from __future__ import annotations

import pytest
from tests.tuning.launches import measured

from pomona.tuning.settings import Pruning

FEW, MORE = 2, 4


@pytest.fixture(scope="module")
def by_layers() -> dict[int, tuple[int, int, int, int]]:
    """Layers -> launches and synchronisations of a step without pruning, and of a settled step with it."""
    found = {}
    for layers in (FEW, MORE):
        plain, pruned = measured(layers, None).settled, measured(layers, Pruning()).settled
        found[layers] = (plain.kernels, plain.synchronisations, pruned.kernels, pruned.synchronisations)
    return found


def at(by_layers: dict[int, tuple[int, int, int, int]], layers: int) -> list[float]:
    """The same for another number of layers: each layer adds as much as the one before it."""
    few, more = by_layers[FEW], by_layers[MORE]
    return [one + (other - one) / (MORE - FEW) * (layers - FEW) for one, other in zip(few, more, strict=True)]


@pytest.mark.parametrize("layers", [32, 80])
def test_launches_with_pruning_against_those_without(by_layers: dict[int, tuple[int, int, int, int]], layers: int) -> None:
    plain, _, pruned, _ = at(by_layers, layers)
    assert pruned <= 1.60 * plain


def test_no_step_waits(by_layers: dict[int, tuple[int, int, int, int]]) -> None:
    assert [(plain, pruned) for _, plain, _, pruned in by_layers.values()] == [(0, 0)] * 2
