from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import random_factors

from pomona.adapters.factors import row_blocks
from pomona.merging.dense import DeltaBlocks


@pytest.mark.parametrize(
    ("shape", "starts"),
    [
        ((3, 4), [0]),
        ((2048, 2048), list(range(0, 2048, 128))),
        ((300, 1000), [0, 262]),
        ((2, 2**20), [0, 1]),  # a row may be longer than a block
    ],
)
def test_blocks_cover_the_rows_once_and_in_order(shape: tuple[int, int], starts: list[int]) -> None:
    blocks = list(row_blocks(*shape))
    assert [block.start for block in blocks] == starts
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(shape[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_the_delta_and_every_walk_gives_the_same_bits(dtype: torch.dtype) -> None:
    factors = random_factors(torch.Generator().manual_seed(1), 5, 1000, 300, scaling=1.5, dtype=dtype)
    blocks = DeltaBlocks(factors)
    first, second = list(blocks), list(blocks)
    assert [block.shape for block in first] == [(262, 1000), (38, 1000)]
    assert {block.dtype for block in first} == {torch.float32}
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    torch.testing.assert_close(torch.cat(first), factors.delta(), rtol=1e-6, atol=1e-5)
