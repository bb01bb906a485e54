from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.pretended_device import moved, pretended_device, values
from torch import Tensor

from pomona.pruning import (
    Granularity,
    ModuleScores,
    Scope,
    lowest,
    lowest_of_rows,
    no_nan,
    pruned_count,
    select_lowest,
    select_masks,
)

PERCENTS = st.integers(0, 100)
# Few distinct values, so that most draws tie.
SCORES = st.lists(st.sampled_from([0.0, 0.25, 1.0, 1.5, 7.0]), min_size=1, max_size=60)


def oracle(scores: Tensor, count: int) -> Tensor:
    """Plain loops: sort (score, index) pairs and take the first ones."""
    order = sorted(range(scores.numel()), key=lambda index: (scores.flatten()[index].item(), index))
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    for index in order[:count]:
        mask[index] = True
    return mask.reshape(scores.shape)


@given(percent=PERCENTS, n=st.integers(0, 5000))
def test_the_count_is_floor_in_decimal(percent: int, n: int) -> None:
    assert pruned_count(percent / 100, n) == (percent * n) // 100


@given(scores=SCORES, percent=PERCENTS)
def test_with_all_ties_everything_up_to_the_last_one_pruned_goes(scores: list[float], percent: int) -> None:
    tensor, count = torch.tensor(scores), (percent * len(scores)) // 100
    expected = [score <= sorted(scores)[count - 1] for score in scores] if count else [False] * len(scores)
    assert select_lowest(tensor, percent / 100, all_ties=True).tolist() == expected


def test_the_count_by_hand() -> None:
    assert pruned_count(0.29, 100) == 29  # 0.29 * 100 = 28.999999999999996
    assert pruned_count(0.7 - 0.4, 10) == 3  # 0.29999999999999993
    assert pruned_count(1 / 3, 9) == 3
    assert pruned_count(0.999, 1000) == 999
    assert pruned_count(0.9999, 1000) == 999
    assert pruned_count(1e-6, 1000) == 0
    assert pruned_count(1.0, 7) == 7
    assert pruned_count(0.0, 7) == 0


@given(p=st.floats(0, 1), n=st.integers(0, 200_000))
def test_the_count_is_within_one_part_in_a_billion_of_the_exact_floor(p: float, n: int) -> None:
    exact = Fraction(p) * n
    count = pruned_count(p, n)
    assert count <= exact + Fraction(1, 10**9)
    assert count + 1 > exact - Fraction(1, 10**9)


@pytest.mark.parametrize("prune_ratio", [-0.01, 1.01, float("nan")])
def test_a_ratio_out_of_range_is_refused(prune_ratio: float) -> None:
    with pytest.raises(ValueError, match=r"prune_ratio must be in \[0, 1\], got"):
        select_lowest(torch.rand(4), prune_ratio)
    with pytest.raises(ValueError, match="n must be >= 0, got -1"):
        pruned_count(0.5, -1)


@given(values=SCORES, percent=PERCENTS, dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
@settings(deadline=None, max_examples=150)
def test_equals_a_slow_oracle_with_ties(values: list[float], percent: int, dtype: torch.dtype) -> None:
    scores = torch.tensor(values, dtype=dtype)
    mask = select_lowest(scores, percent / 100)
    assert torch.equal(mask, oracle(scores, (percent * len(values)) // 100))


@given(values=SCORES, low=PERCENTS, high=PERCENTS)
@settings(deadline=None, max_examples=100)
def test_masks_are_nested(values: list[float], low: int, high: int) -> None:
    low, high = sorted((low, high))
    scores = torch.tensor(values)
    inner, outer = select_lowest(scores, low / 100), select_lowest(scores, high / 100)
    assert not bool((inner & ~outer).any())


def test_distinct_scores_of_a_real_shape_equal_a_stable_sort() -> None:
    scores = torch.rand(64, 257, generator=torch.Generator().manual_seed(1))
    for prune_ratio in (0.0, 1e-5, 0.1, 0.37, 0.5, 0.99, 1.0):
        count = pruned_count(prune_ratio, scores.numel())
        expected = torch.zeros(scores.numel(), dtype=torch.bool)
        expected[scores.flatten().argsort(stable=True)[:count]] = True
        assert torch.equal(select_lowest(scores, prune_ratio).flatten(), expected)


def test_all_equal_goes_by_flat_index_in_every_memory_layout() -> None:
    expected = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.equal(select_lowest(torch.zeros(2, 3), 0.7), expected)
    assert torch.equal(select_lowest(torch.zeros(3, 2).T, 0.7), expected)


def test_infinite_scores_are_kept_longest() -> None:
    scores = torch.tensor([float("inf"), 1.0, float("inf"), 0.0])
    assert select_lowest(scores, 0.5).tolist() == [False, True, False, True]
    assert select_lowest(scores, 0.75).tolist() == [True, True, False, True]


def test_nan_is_refused_and_counted() -> None:
    with pytest.raises(ValueError, match="2 of 4 scores are NaN"):
        select_lowest(torch.tensor([0.0, float("nan"), 1.0, float("nan")]), 0.5)


def test_edges_of_shape_and_gradient() -> None:
    assert select_lowest(torch.empty(0, 3), 0.5).shape == (0, 3)
    weights = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    assert select_lowest(weights * 2, 0.34).tolist() == [False, True, False]
    assert weights.grad is None


# On an accelerator -----------------------------------------------------------------------------------------------------


@given(
    rows=st.lists(
        st.lists(st.sampled_from([0.0, -0.0, 0.25, 1.5, -2.0, 1e-42, 3e38, float("inf")]), min_size=6, max_size=6),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    all_ties=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_rows_together_lose_what_each_loses_by_itself(
    rows: list[list[float]], count: int, dtype: torch.dtype, all_ties: bool
) -> None:
    scores = torch.tensor(rows, dtype=dtype)
    expected = torch.stack([select_lowest(row, count / 6, all_ties=all_ties) for row in scores])
    assert torch.equal(lowest_of_rows(scores, count, all_ties=all_ties), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowest, "LONG", 0)  # the search by bits
        assert torch.equal(lowest_of_rows(scores, count, all_ties=all_ties), expected)


@given(bits=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50), data=st.data())
@settings(deadline=None, max_examples=100)
def test_a_threshold_is_found_among_any_floats(bits: list[int], data: st.DataObject) -> None:
    scores = torch.tensor(bits, dtype=torch.int32).view(torch.float32).nan_to_num(nan=1.0, posinf=None, neginf=None)
    count = data.draw(st.integers(1, len(bits)))
    found = lowest.threshold_by_bits(scores[None], count)
    assert found.item() == sorted(scores.tolist())[count - 1]


@pytest.mark.parametrize(("scope", "long"), [("tensor", 1 << 20), ("layer", 1 << 20), ("global", 0)])
@pytest.mark.parametrize("granularity", ["parameter", "rank", "module"])
def test_masks_are_the_same_on_a_gpu_that_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, granularity: Granularity, scope: Scope, long: int
) -> None:
    if (granularity, scope) == ("module", "tensor"):
        pytest.skip("a module does not compete within one of its tensors")
    monkeypatch.setattr(lowest, "LONG", long)
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randint(0, 5, shape, generator=generator).float()

    here = {
        f"layers.{layer}.{name}": ModuleScores(drawn(3, 8), drawn(6, 3), drawn().double())
        for layer in range(3)
        for name in ("q", "v")
    }
    with pretended_device() as device:
        there = {
            module: ModuleScores(moved(one.A), moved(one.B), moved(torch.as_tensor(one.update_size)))
            for module, one in here.items()
        }
        found = select_masks(there, 0.37, granularity, scope)
        counts = device.reset()
    assert counts.synchronisations == 0
    if (granularity, scope) == ("parameter", "tensor"):
        assert counts.kernels == 20  # two shapes: stack, threshold, and eight for the mask and its ties
    for module, expected in select_masks(here, 0.37, granularity, scope).items():
        for one, other in zip(found[module], expected, strict=True):
            assert torch.equal(values(one), other)


def test_nan_is_reported_at_once() -> None:
    with pretended_device() as device:
        fine, broken = moved(torch.tensor([1.0, float("inf")])), moved(torch.tensor([1.0, float("nan")]))
        told = [no_nan([fine, fine]), no_nan([fine, broken]), no_nan([broken, fine])]
        assert device.counts.synchronisations == 0
    assert [float(values(one)) for one in told] == pytest.approx([0.0, float("nan"), float("nan")], nan_ok=True)
