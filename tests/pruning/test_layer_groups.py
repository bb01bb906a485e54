"""Groups of neighbouring layers: which modules belong together, how large each is, and masks with a ratio for each."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pomona.errors import InputError
from pomona.pruning import ModuleScores, group_shares, layer_groups, pruned_count, select_masks


def module(layer: int, name: str = "q_proj") -> str:
    return f"model.layers.{layer}.self_attn.{name}"


def test_earlier_groups_have_more_layers_and_modules_outside_layers_are_last() -> None:
    modules = ["lm_head", *(module(layer, name) for layer in (10, 2, 0, 1, 3) for name in ("q_proj", "v_proj"))]
    assert layer_groups(modules, 2) == [
        [module(layer, name) for layer in (2, 0, 1) for name in ("q_proj", "v_proj")],
        ["lm_head", *(module(layer, name) for layer in (10, 3) for name in ("q_proj", "v_proj"))],
    ]
    assert layer_groups(modules, 1) == [modules]
    assert layer_groups(["lm_head"], 1) == [["lm_head"]]


@given(st.sets(st.integers(0, 40), min_size=1, max_size=12), st.data())
def test_every_module_is_in_one_group_and_groups_are_neighbours_of_nearly_one_size(layers: set[int], data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(layers)))
    found = layer_groups(map(module, data.draw(st.permutations(sorted(layers)))), groups)
    numbers = [sorted(int(one.split(".")[2]) for one in group) for group in found]
    assert [number for group in numbers for number in group] == sorted(layers)
    sizes = [len(group) for group in numbers]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize(("modules", "groups"), [([module(0), module(1)], 3), (["lm_head"], 2)])
def test_more_groups_than_layers_are_an_input_error(modules: list[str], groups: int) -> None:
    with pytest.raises(
        InputError, match=rf"controller: cannot have ratios for {groups} groups of layers: the adapters are on [02]"
    ):
        layer_groups(modules, groups)
    with pytest.raises(ValueError, match="groups must be >= 1, got 0"):
        layer_groups(modules, 0)


def test_shares_count_entries() -> None:
    assert group_shares({module(0): 10, module(1): 20, module(2): 30, "lm_head": 20}, 2) == (30 / 80, 50 / 80)


def scores(layers: int) -> dict[str, ModuleScores]:
    generator = torch.Generator().manual_seed(layers)
    return {
        module(layer): ModuleScores(torch.rand(2, 6, generator=generator), torch.rand(5, 2, generator=generator), layer)
        for layer in range(layers)
    }


@pytest.mark.parametrize("scope", ["tensor", "layer"])
def test_each_group_s_masks_are_those_of_its_own_ratio(scope: str) -> None:
    all_scores, ratios = scores(5), (0.2, 0.7)
    found = select_masks(all_scores, ratios, scope=scope)  # pyright: ignore[reportArgumentType]
    assert list(found) == list(all_scores)
    alone = [select_masks(all_scores, one, scope=scope) for one in ratios]  # pyright: ignore[reportArgumentType]
    for layer in range(5):
        for mask, expected in zip(found[module(layer)], alone[layer >= 3][module(layer)], strict=True):
            assert torch.equal(mask, expected)


def test_a_global_scope_ends_at_the_group() -> None:
    all_scores = scores(4)
    all_scores |= {
        module(layer): ModuleScores(one.A + 10, one.B + 10, 0.0) for layer, one in enumerate(all_scores.values()) if layer > 1
    }
    found = select_masks(all_scores, [0.5, 0.25], scope="global")
    pruned = [sum(int(mask.sum()) for layer in group for mask in found[module(layer)]) for group in ((0, 1), (2, 3))]
    assert pruned == [pruned_count(0.5, 44), pruned_count(0.25, 44)]
    # A ratio for all would take the first half only.
    assert not any(bool(mask.any()) for layer in (2, 3) for mask in select_masks(all_scores, 0.375, scope="global")[module(layer)])


def test_one_ratio_for_one_group_is_the_ratio_for_all() -> None:
    all_scores = scores(3)
    for one, other in zip(select_masks(all_scores, [0.4]).values(), select_masks(all_scores, 0.4).values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
