"""The weight rule `nan` by hand, and for weights in all their forms."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.builders import Q0, V0, random_adapter

from pomona.adapters import Adapter, Factors
from pomona.merging import merge, norm_weights


def of_norms(*norms: float) -> Adapter:
    """One entry a module, so the norm of the update is that of the entries."""
    modules = dict(zip((Q0, V0), norms, strict=False))
    return Adapter(
        {module: Factors(torch.tensor([[2.0, 0.0]]), torch.tensor([[norm / 4]]), 2.0) for module, norm in modules.items()}
    )


def test_by_hand() -> None:
    # Norms 5 (3 and 4 in two modules) and 20: the harmonic mean is 8.
    adapters = [of_norms(3.0, 4.0), of_norms(20.0)]
    assert norm_weights(adapters, [1.0, 1.0]) == pytest.approx([8 / 5, 8 / 20])
    assert norm_weights(adapters, [0.5, -2.0]) == pytest.approx([4 / 5, -16 / 20])
    by_depth, by_module = norm_weights(adapters, [[0.0, 1.0], [{"filter": "q_proj", "value": [1.0, 2.0]}, {"value": 1.0}]])
    assert by_depth == pytest.approx([0.0, 8 / 5])
    assert by_module == [{"filter": "q_proj", "value": pytest.approx([0.4, 0.8])}, {"value": pytest.approx(0.4)}]


def test_what_has_no_update_or_no_weight_counts_for_nothing() -> None:
    adapters = [of_norms(5.0), of_norms(0.0), of_norms(20.0), of_norms(1000.0)]
    assert norm_weights(adapters, [1.0, 1.0, 1.0, 0.0]) == pytest.approx([8 / 5, 1.0, 8 / 20, 0.0])
    assert norm_weights([of_norms(0.0)], [3.0]) == [3.0]


def test_every_weighted_update_has_the_same_norm_and_the_order_has_no_effect() -> None:
    adapters = [random_adapter(seed, scaling=10.0**seed) for seed in range(3)]
    merged = [merge([one], "svd", [float(w)]) for one, w in zip(adapters, norm_weights(adapters, [1.0] * 3), strict=True)]  # pyright: ignore[reportArgumentType]
    norms = [torch.cat([one.delta(module).flatten() for module in one]).norm().item() for one in merged]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)
    backwards = norm_weights(adapters[::-1], [1.0] * 3)[::-1]
    assert backwards == pytest.approx(norm_weights(adapters, [1.0] * 3))


def test_merge_takes_the_rule_and_records_the_weights() -> None:
    adapters = [of_norms(5.0), of_norms(20.0)]
    merged = merge(adapters, "concat", "nan")
    assert merged.provenance["weight_rule"] == "nan"
    assert merged.provenance["weights"] == pytest.approx([8 / 5, 8 / 20])
    assert merged[Q0].delta().tolist() == [[pytest.approx(16.0), 0.0]]
    assert "weight_rule" not in merge(adapters, "concat").provenance
