"""What every merge method keeps to, by being registered."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.adapters.builders import Q0, Q1, V0, V1, random_adapter

from pomona.adapters import Adapter, Factors, read_adapter, write_adapter
from pomona.errors import InputError
from pomona.merging import merge, merge_methods

METHODS = pytest.mark.parametrize("method", list(merge_methods))
ALONE = pytest.mark.parametrize("method", [name for name in merge_methods if merge_methods[name].identity is not None])


def close(merged: Adapter, expected: Adapter, factor: float = 1.0) -> None:
    assert set(merged) == set(expected)
    for module in merged:
        want = factor * expected[module].delta(torch.float64)
        got = merged[module].delta(torch.float64)
        assert (got - want).norm() <= 2e-6 * want.norm(), module


def alone(method: str) -> dict[str, Any]:
    """The parameters under which the method leaves one adapter as it is; its defaults where it never does."""
    return dict(merge_methods[method].identity or {})


def test_the_descriptions_are_distinct_sentences() -> None:
    """`pomona list` and the reference tell the methods apart by them."""
    found = [merge_methods.describe(method) for method in merge_methods]
    assert [one for one in found if not (one[0].isupper() and one.endswith(".") and 20 < len(one) <= 132)] == []
    assert len({one.casefold() for one in found}) == len(merge_methods)


@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_result_is_fp32_with_scaling_one_and_inputs_stay(method: str, dtype: torch.dtype) -> None:
    adapters = [random_adapter(seed, dtype=dtype, scaling=2.0) for seed in (1, 2)]
    before = [adapter.fingerprint() for adapter in adapters]
    merged = merge(adapters, method)
    assert {(one.A.dtype, one.B.dtype, one.scaling) for one in merged.factors.values()} == {(torch.float32, torch.float32, 1.0)}
    assert {(one.out_features, one.in_features) for one in merged.factors.values()} == {(20, 12)}
    assert [adapter.fingerprint() for adapter in adapters] == before
    # The same values in fp32 give the same merge: nothing is computed in half precision.
    wide = [Adapter({m: Factors(a[m].A.float(), a[m].B.float(), a[m].scaling) for m in a}) for a in adapters]
    assert merge(wide, method).fingerprint() == merged.fingerprint()


@METHODS
def test_permuting_adapters_with_their_weights_changes_nothing(method: str) -> None:
    adapters = [random_adapter(seed, scaling=0.5 + seed) for seed in (1, 2, 3)]
    weights = [0.3, 1.0, -0.8]
    close(merge(adapters[::-1], method, weights[::-1]), merge(adapters, method, weights))
    order = (1, 2, 0)
    close(merge([adapters[i] for i in order], method, [weights[i] for i in order]), merge(adapters, method, weights))


@ALONE
@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, 0.0, 0.0)])
def test_weights_one_and_zero_give_the_first_delta(method: str, weights: tuple[float, ...]) -> None:
    adapters = [random_adapter(seed, scaling=0.5 + seed) for seed in range(len(weights))]
    close(merge(adapters, method, weights, **alone(method)), adapters[0])


@METHODS
def test_an_adapter_of_weight_zero_takes_no_part(method: str) -> None:
    one, two, other = (random_adapter(seed, scaling=0.5 + seed) for seed in range(3))
    with_it = merge([one, other, two], method, [0.7, 0.0, 1.0])
    without = merge([one, two], method, [0.7, 1.0])
    assert with_it.fingerprint() == without.fingerprint()


@METHODS
def test_weights_that_are_all_zero_give_no_update(method: str) -> None:
    adapters = [random_adapter(seed) for seed in (1, 2)]
    merged = merge(adapters, method, [0.0, 0.0])
    assert all(merged.delta(module).count_nonzero() == 0 for module in merged)


@ALONE
def test_one_adapter_is_itself(method: str) -> None:
    adapter = random_adapter(1, scaling=3.0)
    close(merge([adapter], method, **alone(method)), adapter)


@ALONE
def test_a_weight_of_minus_one_turns_one_adapter_round(method: str) -> None:
    adapter = random_adapter(1, scaling=3.0)
    close(merge([adapter], method, [-1.0], **alone(method)), adapter, -1.0)


@METHODS
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_scaling_all_weights_scales_the_delta(method: str, factor: float) -> None:
    adapters = [random_adapter(seed) for seed in (1, 2)]
    close(merge(adapters, method, [factor, -0.5 * factor]), merge(adapters, method, [1.0, -0.5]), factor)


@METHODS
def test_components_of_zeros_change_nothing(method: str) -> None:
    """Adapters of rank one, and the same updates written at rank two."""
    ones = [random_adapter(seed, rank=1) for seed in (1, 2)]
    padded = [Adapter({module: with_zeros(one[module]) for module in one}) for one in ones]
    rank = None if isinstance(merged_or_refusal(padded, method, 2), str) else 2
    merged = merge(ones, method, rank=rank)
    close(merge(padded, method, rank=rank), merged)
    assert {one.rank for one in merged.factors.values()} <= {1, 2}


def with_zeros(pair: Factors) -> Factors:
    """The same update with as many more components, all zero."""
    return Factors(torch.cat([pair.A, 0 * pair.A]), torch.cat([pair.B, 0 * pair.B], dim=1), pair.scaling)


@ALONE
def test_rank_above_the_sides(method: str) -> None:
    wide = [random_adapter(1, rank=9, in_features=3, out_features=5)]
    close(merge(wide, method, **alone(method)), wide[0])


@METHODS
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_rank_is_kept_to_or_refused(method: str, rank: int) -> None:
    merged = merged_or_refusal([random_adapter(seed) for seed in (1, 2)], method, rank)
    if isinstance(merged, str):
        assert "rank" in merged
        assert rank < 8, "the sum of the ranks is enough for every method"
    else:
        assert 1 <= max(one.rank for one in merged.factors.values()) <= rank


@METHODS
@pytest.mark.parametrize("rank", [None, 1, 5, 12])
@pytest.mark.parametrize("of_each", [4, 9])
def test_what_the_rank_lost_is_what_is_missing_of_the_full_rank(method: str, of_each: int, rank: int | None) -> None:
    one, two = (random_adapter(seed, rank=of_each, scaling=0.5 + seed, modules=[Q0, V1]) for seed in (1, 2))
    adapters, weights = [one, two, one], [1.0, -0.7, 0.2]  # one stands twice, and 3 x 9 are more than the sides have
    merged = merged_or_refusal(adapters, method, rank, weights)
    if isinstance(merged, str):
        return
    full = merge(adapters, method, weights, rank=3 * of_each)
    missing = {m: float((full[m].delta(torch.float64) - merged[m].delta(torch.float64)).norm()) for m in full}
    norms = {m: float(full[m].delta(torch.float64).norm()) for m in full}
    shares = {m: missing[m] / norms[m] for m in full}
    found = merged.provenance["rank_loss"]
    assert isinstance(found, dict)
    relative = math.hypot(*missing.values()) / math.hypot(*norms.values())
    assert found["relative"] == pytest.approx(relative, rel=1e-5, abs=2e-6)
    assert found["worst"] == pytest.approx(max(shares.values()), rel=1e-5, abs=2e-6)
    if found["worst_module"] is None:
        assert found == {"relative": 0.0, "worst_module": None, "worst": 0.0}
    else:
        assert shares[found["worst_module"]] == max(shares.values()) > 1e-6
    if rank == 1:  # what gives more than one direction lost some
        assert found["worst"] > 0.01


def merged_or_refusal(adapters: list[Adapter], method: str, rank: int | None, weights: list[float] | None = None) -> Adapter | str:
    try:
        return merge(adapters, method, weights, rank=rank)
    except InputError as error:
        return str(error)


@METHODS
def test_module_missing_in_one_adapter(method: str) -> None:
    one, two = random_adapter(1, modules=[Q0, V0]), random_adapter(2, modules=[V0, Q1, V1])
    merged = merge([one, two], method, [0.5, 2.0])
    assert merged.modules == (Q0, V0, Q1, V1)
    only_one = merge([Adapter({Q0: one[Q0]})], method, [0.5])
    only_two = merge([Adapter({Q1: two[Q1], V1: two[V1]})], method, [2.0])
    for module, expected in ((Q0, only_one), (Q1, only_two), (V1, only_two)):
        assert torch.equal(merged.delta(module), expected.delta(module))


@METHODS
def test_each_module_is_merged_by_itself(method: str) -> None:
    adapters = [random_adapter(seed) for seed in (1, 2)]
    alone_merged = merge([Adapter({V1: adapter[V1]}) for adapter in adapters], method)
    assert torch.equal(merge(adapters, method).delta(V1), alone_merged.delta(V1))


@METHODS
def test_zero_delta_stays_zero(method: str) -> None:
    fresh = Adapter({Q0: Factors(torch.ones(2, 6), torch.zeros(5, 2))})
    assert merge([fresh, fresh], method)[Q0].delta().count_nonzero() == 0


@METHODS
def test_an_untrained_adapter_among_others_adds_no_direction(method: str) -> None:
    """Its B is zero: whatever the method makes of its A, outputs change in the directions of the trained adapter alone."""
    one = random_adapter(1)
    fresh = Adapter({module: Factors(torch.ones(4, 12), torch.zeros(20, 4)) for module in one})
    merged = merge([one, fresh], method, **alone(method))
    for module in one:
        U = torch.linalg.svd(one[module].delta(torch.float64)).U[:, : one[module].rank]
        delta = merged[module].delta(torch.float64)
        assert (delta - U @ (U.T @ delta)).norm() <= 2e-6 * delta.norm()
        assert delta.norm() >= 0.5 * one[module].delta(torch.float64).norm()


@METHODS
def test_the_same_adapter_twice_is_a_multiple_of_it(method: str) -> None:
    """Of what the method makes of it alone: once where it averages, twice where it adds, and all modules alike; or it says not."""
    one = random_adapter(1)
    merged, by_itself = merge([one, one], method, **alone(method)), merge([one], method, **alone(method))
    norms = [[of[module].delta(torch.float64).norm() for module in one] for of in (merged, by_itself)]
    multiple = float(norms[0][0] / norms[1][0])
    assert multiple > 0.99
    if merge_methods[method].repeats:
        close(merged, by_itself, multiple)
    else:
        with pytest.raises(AssertionError):
            close(merged, by_itself, multiple)


@METHODS
def test_same_seed_same_bits(method: str) -> None:
    adapters = [random_adapter(seed) for seed in (1, 2)]
    torch.manual_seed(0)
    first = merge(adapters, method, seed=5).fingerprint()
    torch.manual_seed(1)  # global random state is of no effect
    assert merge(adapters, method, seed=5).fingerprint() == first


@METHODS
def test_the_result_is_written_and_read_back(method: str, tmp_path: Path) -> None:
    merged = merge([random_adapter(seed) for seed in (1, 2)], method)
    write_adapter(merged, tmp_path / "merged")
    again = read_adapter(tmp_path / "merged")
    assert again.modules == merged.modules
    assert all(torch.equal(again.delta(module), merged.delta(module)) for module in merged)


@METHODS
def test_an_embedding_stays_one(method: str) -> None:
    adapters = [Adapter({Q0: random_adapter(seed)[Q0]}, embeddings=frozenset({Q0})) for seed in (1, 2)]
    assert merge(adapters, method).embeddings == {Q0}


@METHODS
def test_a_module_without_rank(method: str) -> None:
    """A module that was pruned away by ranks has factors [0, I] and [O, 0]: an update of zero."""
    empty = Adapter({Q0: Factors(torch.zeros(0, 12), torch.zeros(20, 0))})
    assert merge([empty], method)[Q0].delta().count_nonzero() == 0
    one = Adapter({Q0: random_adapter(1)[Q0]})
    together = merged_or_refusal([one, empty], method, 8)
    if isinstance(together, str):
        assert "rank" in together
    else:
        assert torch.isfinite(together.delta(Q0)).all()
        assert together.delta(Q0).count_nonzero() > 0
