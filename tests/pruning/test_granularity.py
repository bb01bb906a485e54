from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, pairwise, product
from typing import NamedTuple, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pomona.errors import InputError
from pomona.pruning import (
    Granularity,
    ModuleMasks,
    ModuleScores,
    Scope,
    check_scope,
    pruned_count,
    select_lowest,
    select_masks,
)

PAIRS = [
    (granularity, scope)
    for granularity, scope in product(get_args(Granularity), get_args(Scope))
    if (granularity, scope) != ("module", "tensor")
]
# Two layers, told apart by number (2 is not 12), and two modules outside the layers.
MODULES = ("wte", "transformer.h.2.attn.c_attn", "transformer.h.2.mlp.c_fc", "transformer.h.12.attn.c_attn", "lm_head")
# Few distinct values, so that most draws tie.
SCORE = st.sampled_from([0.0, 0.25, 1.0, 1.5, 7.0])
PERCENTS = st.integers(0, 100)


class Unit(NamedTuple):
    """One thing that is pruned as a whole: what it competes in, its importance, and the entries it consists of."""

    group: object
    importance: float
    entries: list[tuple[str, str, int, int]]


def _layer(module: str) -> object:
    numbers = [part for part in module.split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else module


def _units(scores: Mapping[str, ModuleScores], granularity: str, scope: str) -> list[Unit]:
    """In the order in which equal ones are pruned."""
    units = []
    for module, one in scores.items():
        A, B = one.A.double().tolist(), one.B.double().tolist()
        R, I, O = len(A), len(A[0]), len(B)  # noqa: E741
        group: object = {"layer": _layer(module), "global": "all", "tensor": module}[scope]
        entries_A = [[("A", module, r, j) for j in range(I)] for r in range(R)]
        entries_B = [[("B", module, o, r) for r in range(R)] for o in range(O)]
        if granularity == "parameter":
            for side, matrix, entries in (("A", A, entries_A), ("B", B, entries_B)):
                for row, names in zip(matrix, entries, strict=True):
                    for value, name in zip(row, names, strict=True):
                        units.append(Unit((module, side) if scope == "tensor" else group, value, [name]))
        elif granularity == "rank":
            for r in range(R):
                mean_A = sum(A[r][j] for j in range(I)) / I
                mean_B = sum(B[o][r] for o in range(O)) / O
                units.append(Unit(group, mean_A * mean_B, entries_A[r] + [entries_B[o][r] for o in range(O)]))
        else:
            units.append(Unit(group, float(one.update_size), [*chain(*entries_A, *entries_B)]))
    return units


def oracle(scores: Mapping[str, ModuleScores], percent: int, granularity: str, scope: str) -> dict[str, ModuleMasks]:
    masks = {
        module: ModuleMasks(*(torch.zeros(matrix.shape, dtype=torch.bool) for matrix in (one.A, one.B)))
        for module, one in scores.items()
    }
    units = _units(scores, granularity, scope)
    for group in {unit.group for unit in units}:
        members = [(unit.importance, place) for place, unit in enumerate(units) if unit.group == group]
        for _, place in sorted(members)[: percent * len(members) // 100]:
            for side, module, row, column in units[place].entries:
                getattr(masks[module], side)[row, column] = True
    return masks


def _equal(one: Mapping[str, ModuleMasks], other: Mapping[str, ModuleMasks]) -> bool:
    return list(one) == list(other) and all(
        torch.equal(a, b) for module in one for a, b in zip(one[module], other[module], strict=True)
    )


def _count(masks: Mapping[str, ModuleMasks]) -> int:
    return sum(int(mask.sum()) for pair in masks.values() for mask in pair)


def _random(seed: int, dtype: torch.dtype = torch.float32, modules: tuple[str, ...] = MODULES) -> dict[str, ModuleScores]:
    """Distinct scores; ranks and shapes that differ from module to module."""
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for place, module in enumerate(modules):
        rank, in_features, out_features = 2 + place, 3 + place % 2, 5 - place % 3
        A = torch.rand(rank, in_features, generator=generator, dtype=torch.float64)
        B = torch.rand(out_features, rank, generator=generator, dtype=torch.float64)
        scores[module] = ModuleScores(A.to(dtype), B.to(dtype), float(torch.rand((), generator=generator)))
    return scores


@st.composite
def tied(draw: st.DrawFn) -> dict[str, ModuleScores]:
    def matrix(rows: int, columns: int) -> Tensor:
        return torch.tensor(draw(st.lists(SCORE, min_size=rows * columns, max_size=rows * columns))).reshape(rows, columns)

    modules = draw(st.lists(st.sampled_from(MODULES), min_size=1, max_size=4, unique=True))
    scores = {}
    for module in modules:
        rank = draw(st.integers(1, 4))
        # 2 and 4 columns: the means are exact, so that ties are ties in every arithmetic.
        scores[module] = ModuleScores(matrix(rank, draw(st.sampled_from([2, 4]))), matrix(2, rank), draw(SCORE))
    return scores


@pytest.mark.parametrize(("granularity", "scope"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_distinct_scores_equal_the_oracle(granularity: Granularity, scope: Scope, dtype: torch.dtype) -> None:
    for percent in (0, 1, 10, 29, 50, 70, 99, 100):
        scores = _random(percent, dtype)
        masks = select_masks(scores, percent / 100, granularity, scope)
        assert _equal(masks, oracle(scores, percent, granularity, scope)), percent


@pytest.mark.parametrize(("granularity", "scope"), PAIRS)
@given(scores=tied(), percent=PERCENTS)
@settings(deadline=None, max_examples=40)
def test_ties_equal_the_oracle(granularity: Granularity, scope: Scope, scores: dict[str, ModuleScores], percent: int) -> None:
    assert _equal(select_masks(scores, percent / 100, granularity, scope), oracle(scores, percent, granularity, scope))


@pytest.mark.parametrize(("granularity", "scope"), PAIRS)
@given(scores=tied(), percents=st.lists(PERCENTS, min_size=2, max_size=4))
@settings(deadline=None, max_examples=20)
def test_masks_are_nested(granularity: Granularity, scope: Scope, scores: dict[str, ModuleScores], percents: list[int]) -> None:
    masks = [select_masks(scores, percent / 100, granularity, scope) for percent in sorted(percents)]
    for inner, outer in pairwise(masks):
        for module in scores:
            assert not any(bool((a & ~b).any()) for a, b in zip(inner[module], outer[module], strict=True))


@pytest.mark.parametrize(("granularity", "scope"), PAIRS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_none_at_0_or_next_to_nothing_and_all_at_1_where_all_are_equal(
    granularity: Granularity, scope: Scope, value: float
) -> None:
    scores = {
        module: ModuleScores(torch.full_like(one.A, value), torch.full_like(one.B, value), value)
        for module, one in _random(0).items()
    }
    total = sum(one.A.numel() + one.B.numel() for one in scores.values())
    assert _count(select_masks(scores, 0.0, granularity, scope)) == 0
    assert _count(select_masks(scores, 1e-6, granularity, scope)) == 0
    assert _count(select_masks(scores, 1.0, granularity, scope)) == total
    assert _equal(select_masks(scores, 0.5, granularity, scope), oracle(scores, 50, granularity, scope))


def test_counts_by_hand() -> None:
    scores = {f"layers.{layer}.{name}": one for layer in (0, 1) for name, one in zip("qv", _random(3).values(), strict=False)}
    entries = [matrix.numel() for one in scores.values() for matrix in (one.A, one.B)]
    assert entries == [6, 10, 12, 12] * 2  # q: rank 2, 3 in, 5 out; v: rank 3, 4 in, 4 out
    assert _count(select_masks(scores, 0.3)) == 2 * (1 + 3 + 3 + 3)
    assert _count(select_masks(scores, 0.3, scope="layer")) == 2 * 12
    assert _count(select_masks(scores, 0.3, scope="global")) == 24
    gone = [pair.A[:, 0].tolist() for pair in select_masks(scores, 0.5, "rank").values()]
    assert [sum(one) for one in gone] == [1, 1, 1, 1]
    assert sum(int(pair.A[:, 0].sum()) for pair in select_masks(scores, 0.5, "rank", "global").values()) == 5
    assert sum(bool(pair.A.all()) for pair in select_masks(scores, 0.5, "module").values()) == 2


def test_the_standard_case_is_select_lowest_of_each_factor() -> None:
    scores = _random(1)
    masks = select_masks(scores, 0.37)
    for module, one in scores.items():
        assert torch.equal(masks[module].A, select_lowest(one.A, 0.37))
        assert torch.equal(masks[module].B, select_lowest(one.B, 0.37))


def test_a_component_does_not_depend_on_how_the_update_is_balanced_between_its_factors() -> None:
    scores = _random(2)
    balance = {module: 2.0 ** torch.arange(-3, len(one.A) - 3) for module, one in scores.items()}
    moved = {
        module: ModuleScores(one.A * balance[module][:, None], one.B / balance[module], one.update_size)
        for module, one in scores.items()
    }
    for scope in get_args(Scope):
        assert _equal(select_masks(moved, 0.5, "rank", scope), select_masks(scores, 0.5, "rank", scope))


def test_a_component_with_one_unimportant_half_is_pruned_first() -> None:
    A, B = torch.full((4, 3), 1e-30), torch.full((2, 4), 1e-30)  # the products of these vanish in fp32
    B[:, 2] = 0.0
    A[2] = 1e30
    A[1] = 1e-31
    masks = select_masks({"m": ModuleScores(A, B, 1.0)}, 0.25, "rank")
    assert masks["m"].A[:, 0].tolist() == masks["m"].B[0].tolist() == [False, False, True, False]
    masks = select_masks({"m": ModuleScores(A, B, 1.0)}, 0.5, "rank")
    assert masks["m"].A[:, 0].tolist() == [False, True, True, False]


def test_whole_modules_go_by_the_size_of_their_update_alone() -> None:
    sizes: dict[str, float] = dict(zip(MODULES, (5.0, 3.0, 4.0, 1.0, 2.0), strict=True))
    scores = {module: one._replace(update_size=sizes[module]) for module, one in _random(0).items()}
    gone = [module for module, pair in select_masks(scores, 0.59, "module").items() if pair.A.all() and pair.B.all()]
    assert gone == ["transformer.h.12.attn.c_attn", "lm_head"]
    gone = [module for module, pair in select_masks(scores, 0.59, "module", "layer").items() if pair.A.all()]
    assert gone == ["transformer.h.2.attn.c_attn"]  # of the two in layer 2; every other one competes with itself


def test_default_scopes() -> None:
    assert [check_scope(one, None) for one in ("parameter", "rank", "module")] == ["tensor", "tensor", "global"]
    assert check_scope("module", None) == "global"
    assert check_scope("rank", "layer") == "layer"
    assert _equal(select_masks(_random(4), 0.5, "module"), select_masks(_random(4), 0.5, "module", "global"))
    with pytest.raises(
        InputError, match=r"pruning\.scope: granularity 'module' has no such scope \(got 'tensor'\)\. Use one of layer"
    ):
        select_masks(_random(4), 0.5, "module", "tensor")


@pytest.mark.parametrize(("granularity", "scope"), PAIRS)
def test_nan_and_a_ratio_out_of_range_are_refused(granularity: Granularity, scope: Scope) -> None:
    scores = _random(5)
    with pytest.raises(ValueError, match=r"prune_ratio must be in \[0, 1\], got 1.5"):
        select_masks(scores, 1.5, granularity, scope)
    broken = scores["lm_head"].B.clone()
    broken[0, 0] = torch.nan
    scores["lm_head"] = ModuleScores(scores["lm_head"].A, broken, torch.nan)
    with pytest.raises(ValueError, match=r"1 of \d+ scores are NaN"):
        select_masks(scores, 0.5, granularity, scope)


@pytest.mark.parametrize(("granularity", "scope"), PAIRS)
def test_no_mask_is_another_or_repeats_itself(granularity: Granularity, scope: Scope) -> None:
    scores = _random(6)
    masks = select_masks(scores, 0.5, granularity, scope)
    for pair in masks.values():
        for mask in pair:
            assert mask.is_contiguous()
            before = _count(masks)
            own = int(mask.sum())
            mask.fill_(False)  # an expanded or shared one would change others, or refuse
            assert _count(masks) == before - own
    assert _count(masks) == 0
    assert _equal(select_masks(scores, 0.5, granularity, scope), oracle(scores, 50, granularity, scope))


def test_no_module_at_all() -> None:
    assert [select_masks({}, 0.5, granularity, scope) for granularity, scope in PAIRS] == [{}] * len(PAIRS)


def test_entries_of_a_real_shape_pooled_equal_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(7)
    scores = {
        f"layers.{layer}.q": ModuleScores(torch.rand(16, 65, generator=generator), torch.rand(64, 16, generator=generator), 1.0)
        for layer in range(3)
    }
    flat = torch.cat([matrix.flatten() for one in scores.values() for matrix in (one.A, one.B)])
    expected = torch.zeros(len(flat), dtype=torch.bool)
    expected[flat.argsort(stable=True)[: pruned_count(0.37, len(flat))]] = True
    masks = select_masks(scores, 0.37, scope="global")
    assert torch.equal(torch.cat([mask.flatten() for pair in masks.values() for mask in pair]), expected)
