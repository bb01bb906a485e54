"""Units of sources: a plain oracle selects the same, counts are exact, and masks are nested."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.pruning import ModuleScores, check_scope, pruned_count, select_masks_by_source

# Two modules in one layer, one in another, and one outside the layers; the second adapter lacks two of them.
MODULES = {"layers.0.q": (0, 1), "layers.0.v": (0,), "layers.3.q": (0, 1), "head": (0,)}
RANKS = (2, 3)
KINDS = [
    ("source_rank", "tensor"),
    ("source_rank", "layer"),
    ("source_rank", "global"),
    ("source_layer", "layer"),
    ("source_layer", "global"),
]
EVERY = pytest.mark.parametrize(("granularity", "scope"), KINDS)
TOGETHER = pytest.mark.parametrize("together", [True, False])


def scores(seed: int = 0, factors: tuple[float, float] = (1.0, 1.0)) -> dict[str, dict[int, ModuleScores]]:
    """Of 4 inputs and 2 outputs; each adapter's are multiplied by a factor."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(k: int) -> ModuleScores:
        A, B = torch.rand(RANKS[k], 4, generator=generator), torch.rand(2, RANKS[k], generator=generator)
        return ModuleScores(A * factors[k], B * factors[k], 0.0)

    return {module: {k: drawn(k) for k in adapters} for module, adapters in MODULES.items()}


def oracle(found: dict[str, dict[int, ModuleScores]], ratio: float, granularity: str, scope: str, together: bool) -> set[Any]:
    """The pruned (module, adapter, component), from lists of plain numbers."""
    units: dict[Any, tuple[float, list[Any]]] = {}
    for module, own in found.items():
        layer = module.split(".")[1] if "." in module else module
        for k, one in own.items():
            for r, (row, column) in enumerate(zip(one.A.double().tolist(), one.B.double().T.tolist(), strict=True)):
                value = sum(row) / len(row) * sum(column) / len(column)
                place = {"tensor": module, "layer": layer, "global": ""}[scope]
                key = (place, "" if together else k), ((layer, k) if granularity == "source_layer" else (module, k, r))
                before, members = units.get(key, (0.0, []))
                units[key] = before + value, [*members, (module, k, r)]
    gone: set[Any] = set()
    for group in {group for group, _ in units}:
        ranked = sorted((value, name) for (other, name), (value, _) in units.items() if other == group)
        for _, name in ranked[: pruned_count(ratio, len(ranked))]:
            gone |= set(units[group, name][1])
    return gone


def selected(masks: Any) -> set[Any]:
    gone = set()
    for module, own in masks.items():
        for k, (A, B) in own.items():
            assert torch.equal(A.all(dim=1), A.any(dim=1))  # whole components, of both factors
            assert torch.equal(A[:, 0], B.all(dim=0))
            assert torch.equal(B.all(dim=0), B.any(dim=0))
            gone |= {(module, k, int(r)) for r in A[:, 0].nonzero()}
    return gone


@EVERY
@TOGETHER
def test_equals_the_oracle(granularity: Any, scope: Any, together: bool) -> None:
    for seed, ratio in enumerate((0.0, 0.2, 0.34, 0.5, 0.75, 1.0)):
        found = scores(seed)
        masks = select_masks_by_source(found, ratio, granularity, scope, together=together)
        assert {module: set(own) for module, own in masks.items()} == {module: set(own) for module, own in MODULES.items()}
        assert selected(masks) == oracle(found, ratio, granularity, scope, together)


@EVERY
@TOGETHER
@settings(deadline=None, max_examples=15)
@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_masks_are_nested(granularity: Any, scope: Any, together: bool, low: float, high: float) -> None:
    low, high = sorted((low, high))
    less, more = (selected(select_masks_by_source(scores(), one, granularity, scope, together=together)) for one in (low, high))
    assert less <= more


def test_by_default_all_compete_and_the_counts_are_of_units() -> None:
    gone = selected(select_masks_by_source(scores(), 0.5, "source_rank", together=True))
    assert len(gone) == pruned_count(0.5, 4 * 2 + 2 * 3)
    layers = selected(select_masks_by_source(scores(), 0.4, "source_layer", together=True))
    assert len({(module.split(".")[:2][-1], k) for module, k, _ in layers}) == pruned_count(0.4, 3 + 2)


def test_a_factor_on_an_adapter_moves_no_mask_where_each_loses_its_own_share() -> None:
    for granularity, scope in KINDS:
        found = [
            selected(select_masks_by_source(scores(0, factors), 0.5, granularity, scope, together=False))  # pyright: ignore[reportArgumentType]
            for factors in ((1.0, 1.0), (100.0, 0.01))
        ]
        assert found[0] == found[1]
    strong = selected(select_masks_by_source(scores(0, (100.0, 0.01)), 0.4, "source_layer", together=True))
    assert {k for _, k, _ in strong} == {1}  # the weak adapter leaves both of its layers


def test_groups_of_layers_have_ratios_of_their_own() -> None:
    gone = selected(select_masks_by_source(scores(), [1.0, 0.0], "source_layer", together=True))
    assert {module for module, _, _ in gone} == {"layers.0.q", "layers.0.v"}


def test_ties_go_in_the_order_of_modules_and_adapters() -> None:
    same = {
        module: {k: ModuleScores(torch.ones(1, 4), torch.ones(2, 1), 0.0) for k in (0, 1)}
        for module in ("layers.0.q", "layers.1.q")
    }
    order = [(module, k, 0) for module, k in itertools.product(same, (0, 1))]
    for granularity in ("source_rank", "source_layer"):
        for count in range(5):
            assert selected(select_masks_by_source(same, count / 4, granularity, together=True)) == set(order[:count])


def test_the_layer_of_a_source_has_no_place_in_one_tensor() -> None:
    with pytest.raises(InputError, match=r"pruning\.scope: granularity 'source_layer' has no such scope \(got 'tensor'\)"):
        check_scope("source_layer", "tensor")
    assert [check_scope(kind, None) for kind in ("source_layer", "source_rank", "rank")] == ["global", "global", "tensor"]
    broken = {"head": {0: ModuleScores(torch.full((1, 2), torch.nan), torch.ones(2, 1), 0.0)}}
    with pytest.raises(ValueError, match="NaN"):
        select_masks_by_source(broken, 0.5, "source_layer", together=True)
