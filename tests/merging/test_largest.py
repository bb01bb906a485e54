from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pomona.merging.largest import Largest, keep_largest


def marks(matrix: Tensor, count: int, block_rows: int = 100) -> Tensor:
    blocks = list(matrix.split(block_rows))
    largest = Largest(blocks, count)
    return torch.cat([largest(block) for block in blocks])


def first_by_sorting(matrix: Tensor, count: int) -> Tensor:
    """Python's sort keeps equal magnitudes in order of index."""
    flat = matrix.flatten().abs().tolist()
    chosen = sorted(range(len(flat)), key=lambda place: -flat[place])[: max(count, 0)]
    mask = torch.zeros(matrix.numel(), dtype=torch.bool)
    mask[chosen] = True
    return mask.view_as(matrix)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 7),
    block_rows=st.integers(1, 4),
    count=st.integers(-1, 70),
    distinct=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
def test_exactly_count_entries_the_first_of_equal_ones(
    rows: int, columns: int, block_rows: int, count: int, distinct: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randint(-distinct, distinct + 1, (rows, columns), generator=generator) * 0.3
    got = marks(matrix, count, block_rows)
    assert int(got.sum()) == min(max(count, 0), rows * columns)
    assert torch.equal(got, first_by_sorting(matrix, count))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
    count=st.integers(0, 40),
)
def test_any_floats_including_denormal_and_infinite_ones(values: list[float], count: int) -> None:
    matrix = torch.tensor(values)[:, None]
    assert torch.equal(marks(matrix, count, 7), first_by_sorting(matrix, count))


def test_neighbouring_floats_are_distinguished() -> None:
    """The lowest bits decide: 1, and the next fp32 numbers above it."""
    steps = torch.tensor([[3, 0, 2, 1]], dtype=torch.int32)
    matrix = (torch.ones(1, 4).view(torch.int32) + steps).view(torch.float32)
    assert marks(matrix, 2).tolist() == [[True, False, True, False]]


def test_a_large_matrix_in_blocks_equals_topk() -> None:
    matrix = torch.randn(300, 500, generator=torch.Generator().manual_seed(0))
    count = 30_000
    blocks = list(matrix.split(64))
    kept = keep_largest(blocks, count)
    got = torch.cat([kept(block) for block in blocks])
    expected = torch.zeros(matrix.numel())
    top = matrix.flatten().abs().topk(count).indices
    expected[top] = matrix.flatten()[top]
    assert torch.equal(got, expected.view_as(matrix))


@pytest.mark.parametrize("count", [0, 3])
def test_the_input_stays(count: int) -> None:
    matrix = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    kept = keep_largest([matrix], count)(matrix)
    assert kept.count_nonzero() == count
    assert matrix.tolist() == [[1.0, -2.0], [3.0, -4.0]]
