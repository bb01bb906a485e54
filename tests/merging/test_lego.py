from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.merging.dense import GENERATOR, delta, error, exact

from pomona.adapters import Factors
from pomona.merging.lego import Lego, k_means


def three() -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [random_factors(generator, rank, 18, 24, scale) for rank, scale in ((3, 0.5), (5, 2.0), (2, 1.0))]


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, -1.5, 2.0]])
def test_at_the_full_rank_it_is_the_sum(weights: list[float]) -> None:
    merged = Lego().merge(three(), weights, 10, GENERATOR)
    assert merged.rank == 10
    assert error(merged, exact(three(), weights)) <= 1e-6


def test_by_hand() -> None:
    # (4, 0 | 2) and (0, 4 | 2) are one cluster: centre (2, 2 | 2), its largest entry 2, the mean 4: (4, 4 | 4); N / K = 3 / 2.
    one = Factors(torch.tensor([[4.0, 0.0], [-40.0, 0.0]]), torch.tensor([[2.0, 50.0]]))
    two = Factors(torch.tensor([[0.0, 4.0]]), torch.tensor([[2.0]]))
    merged = Lego().merge([one, two], [1.0, 1.0], 2, GENERATOR)
    expected = math.sqrt(1.5) * (torch.tensor([[-2000.0, 0.0]]) + torch.tensor([[16.0, 16.0]]))
    torch.testing.assert_close(merged.delta(), expected, rtol=1e-6, atol=1e-5)


def test_components_that_were_copied_and_disturbed_are_found_again() -> None:
    """Against all partitions: no other assignment of the eight points to four clusters has a smaller sum of squares."""
    one = three()[1]
    one = Factors(one.A[:4], one.B[:, :4])
    noise = torch.Generator().manual_seed(1)
    other = Factors(one.A.flip(0) + 0.05 * torch.randn(4, 18, generator=noise), one.B.flip(1))
    points = torch.cat([torch.cat([pair.A, pair.B.T], dim=1) for pair in (one, other)]).double()
    cluster = k_means(points, 4)
    assert [int(cluster[place] == cluster[7 - place]) for place in range(4)] == [1] * 4
    assert len(set(cluster.tolist())) == 4
    merged = Lego().merge([one, other], [1.0, 1.0], None, GENERATOR)
    a, b = (points[:4] + points[4:].flip(0)).mul(0.5).split([18, 24], dim=1)
    sizes = (points[:4].abs().amax(1) + points[4:].flip(0).abs().amax(1)) / 2 / torch.cat([a, b], 1).abs().amax(1)
    assert error(merged, math.sqrt(2) * (b.T * sizes.square()) @ a) <= 1e-6


def test_k_means_ends_where_no_point_is_nearer_to_another_centre() -> None:
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cluster = k_means(points, 6)
    centres = torch.stack([points[cluster == one].mean(dim=0) for one in range(6)])
    assert torch.cdist(points, centres).argmin(dim=1).tolist() == cluster.tolist()


def test_weights_share_the_norm_between_both_factors() -> None:
    factors = three()
    twice = Lego().merge(factors, [2.0, -4.0, 1.0], 4, GENERATOR)
    assert error(twice, 2 * delta(Lego().merge(factors, [1.0, -2.0, 0.5], 4, GENERATOR))) <= 1e-6


def test_permuting_adapters_changes_no_bit() -> None:
    factors, weights = three(), [1.0, -0.5, 2.0]
    expected = Lego().merge(factors, weights, 4, GENERATOR)
    for order in itertools.permutations(range(3)):
        merged = Lego().merge([factors[k] for k in order], [weights[k] for k in order], 4, GENERATOR)
        assert torch.equal(merged.A, expected.A)
        assert torch.equal(merged.B, expected.B)


def test_points_that_coincide_and_points_that_cancel() -> None:
    one = three()[0]
    assert Lego().merge([one, one, one], [1.0] * 3, 5, GENERATOR).rank == 3
    both = Factors(torch.cat([one.A[:1], -one.A[:1]]), torch.cat([one.B[:, :1], -one.B[:, :1]], dim=1))
    assert Lego().merge([both], [1.0], 1, GENERATOR).delta().count_nonzero() == 0
