"""Each adapter loses its own share, whatever its scores are multiplied by."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.pruning import ModuleScores, pruned_count, select_masks_by_adapter

MODULES = {"layers.0.q": (0, 1), "layers.1.q": (1,), "layers.2.q": (0, 1), "head": (0,)}
RANKS = (2, 3)


def scores(factors: tuple[float, float] = (1.0, 1.0)) -> dict[str, dict[int, ModuleScores]]:
    """Of 5 inputs and 4 outputs; each adapter's are multiplied by a factor."""
    generator = torch.Generator().manual_seed(0)
    drawn = {
        module: {k: (torch.rand(RANKS[k], 5, generator=generator), torch.rand(4, RANKS[k], generator=generator)) for k in adapters}
        for module, adapters in MODULES.items()
    }
    return {
        module: {k: ModuleScores(A * factors[k], B * factors[k], 0.0) for k, (A, B) in own.items()} for module, own in drawn.items()
    }


@settings(deadline=None, max_examples=30)
@given(prune_ratio=st.floats(0, 1), weight=st.floats(1e-3, 1e3), scope=st.sampled_from(["tensor", "layer", "global"]))
def test_a_factor_on_an_adapter_s_scores_moves_no_mask(prune_ratio: float, weight: float, scope: str) -> None:
    plain = select_masks_by_adapter(scores(), prune_ratio, scope)  # pyright: ignore[reportArgumentType]
    weighted = select_masks_by_adapter(scores((weight, 1 / weight)), prune_ratio, scope)  # pyright: ignore[reportArgumentType]
    for module, own in plain.items():
        assert set(own) == set(MODULES[module])
        for k, masks in own.items():
            assert all(torch.equal(one, other) for one, other in zip(masks, weighted[module][k], strict=True))


def test_every_factor_of_every_adapter_loses_its_count() -> None:
    for own in select_masks_by_adapter(scores(), 0.37).values():
        for k, masks in own.items():
            assert [int(mask.sum()) for mask in masks] == [pruned_count(0.37, RANKS[k] * 5), pruned_count(0.37, 4 * RANKS[k])]


def test_a_wider_scope_is_that_of_one_adapter() -> None:
    found = select_masks_by_adapter(scores((1.0, 1e-3)), 0.5, "global")
    for k, rank in enumerate(RANKS):
        masks = [mask for own in found.values() if k in own for mask in own[k]]
        assert sum(int(mask.sum()) for mask in masks) == pruned_count(0.5, len(masks) // 2 * rank * 9)
        assert len({int(mask.sum()) for mask in masks if mask.shape == (rank, 5)}) > 1  # they compete


def test_groups_of_layers_are_those_of_all_modules() -> None:
    """The first adapter has no part in layer 1, whose group is that of layer 0 all the same."""
    found = select_masks_by_adapter(scores(), (0.2, 0.8))
    for module, ratio in zip(MODULES, (0.2, 0.2, 0.8, 0.8), strict=True):
        for k, masks in found[module].items():
            assert int(masks.A.sum()) == pruned_count(ratio, RANKS[k] * 5)
    with pytest.raises(InputError, match="4 groups of layers"):
        select_masks_by_adapter(scores(), (0.1, 0.2, 0.3, 0.4))
