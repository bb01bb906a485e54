from __future__ import annotations

import pytest
import torch

from pomona.merging.thin import thinned


def test_entries_are_dropped_or_divided_by_their_probability() -> None:
    values = torch.arange(1.0, 20_001.0).view(100, 200)
    got = thinned(values, 0.25, torch.Generator().manual_seed(0))
    kept = got != 0
    assert torch.equal(got[kept], values[kept] / 0.25)
    # 20,000 draws at 1/4: the share's standard deviation is 0.0031.
    assert abs(float(kept.float().mean()) - 0.25) < 0.012
    assert values[0, 0] == 1.0


def test_each_entry_has_its_own_probability() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 1.0]])
    generator = torch.Generator().manual_seed(1)
    draws = torch.cat([thinned(torch.ones(1, 3), probabilities, generator) for _ in range(4000)])
    shares = (draws != 0).float().mean(0)
    torch.testing.assert_close(shares, probabilities[0], rtol=0, atol=0.03)
    assert shares[2] == 1.0
    torch.testing.assert_close(draws.mean(0), torch.ones(3), rtol=0, atol=0.2)
    assert torch.equal(draws.max(0).values, 1 / probabilities[0])


@pytest.mark.parametrize("seed", [0, 7])
def test_the_generator_alone_decides(seed: int) -> None:
    values = torch.randn(30, 40, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    first = thinned(values, 0.5, torch.Generator().manual_seed(seed))
    torch.manual_seed(1)
    assert torch.equal(thinned(values, 0.5, torch.Generator().manual_seed(seed)), first)
    assert not torch.equal(thinned(values, 0.5, torch.Generator().manual_seed(seed + 1)), first)
