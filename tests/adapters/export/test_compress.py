from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import Q0, Q1, V0, random_factors

from pomona.adapters import Adapter, Factors
from pomona.adapters.export import compress
from pomona.errors import InputError


def mixed() -> Adapter:
    """Ranks 5, 2 and 3, other sides, scalings that are not 1."""
    generator = torch.Generator().manual_seed(0)
    factors = {
        Q0: random_factors(generator, 5, 12, 20, scaling=0.3),
        V0: random_factors(generator, 2, 12, 8, scaling=2.0, dtype=torch.bfloat16),
        Q1: random_factors(generator, 3, 7, 9, scaling=-1.5),
    }
    return Adapter(factors, "base", {"path": "somewhere"})


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_each_module_is_its_best_approximation_with_the_exact_error(rank: int) -> None:
    adapter = mixed()
    small, report = compress(adapter, rank)
    lost, whole, shares = 0.0, 0.0, {}
    for module in adapter:
        delta = adapter[module].delta(torch.float64)
        U, S, Vh = torch.linalg.svd(delta)
        best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
        torch.testing.assert_close(small[module].delta(torch.float64), best, rtol=1e-5, atol=1e-5)
        assert small[module].rank == min(rank, adapter[module].rank)
        missing = float((delta - best).norm())
        shares[module] = missing / float(delta.norm())
        lost, whole = lost + missing**2, whole + float(delta.norm()) ** 2
    worst = max(shares, key=lambda module: shares[module])
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-9)
    assert (report.rank, report.worst_module) == (rank, worst)
    assert report.worst_error == pytest.approx(shares[worst], rel=1e-9)
    assert (small.base_model, small.provenance) == ("base", {"path": "somewhere"})


def test_a_module_of_a_smaller_rank_is_kept_bit_for_bit() -> None:
    adapter = mixed()
    small, report = compress(adapter, 3)
    for module in (V0, Q1):
        assert small[module] is adapter[module]
    assert small[Q0].scaling == 1.0
    same, nothing = compress(adapter, 5)
    assert all(same[module] is adapter[module] for module in adapter)
    assert (nothing.error, nothing.worst_error) == (0.0, 0.0)
    assert report.worst_module == Q0


def test_embeddings_stay_embeddings() -> None:
    embedding = random_factors(torch.Generator().manual_seed(0), 4)
    adapter = Adapter({"model.embed_tokens": embedding}, embeddings=frozenset({"model.embed_tokens"}))
    assert compress(adapter, 2)[0].embeddings == adapter.embeddings


def test_an_update_of_zero_loses_nothing() -> None:
    small, report = compress(Adapter({Q0: Factors(torch.zeros(4, 12), torch.ones(20, 4))}), 2)
    assert (report.error, small[Q0].rank) == (0.0, 2)
    assert not small.delta(Q0).any()


def test_refusals() -> None:
    with pytest.raises(InputError, match="at least 1 \\(got 0\\)"):
        compress(mixed(), 0)
    with pytest.raises(InputError, match="no modules"):
        compress(Adapter({}), 2)
