from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tests.adapters.builders import Q0, Q1, V0, V1, exact_delta, random_adapter

from pomona.adapters import Adapter, check_finite, read_adapter, write_adapter
from pomona.errors import InputError
from pomona.merging import merge


def test_union_in_the_models_order_with_each_modules_own_weights() -> None:
    one, two = random_adapter(1, modules=[V1, Q0]), random_adapter(2, modules=[V1, V0, Q1], rank=3)
    merged = merge([one, two], "concat", [2.0, -0.5])
    assert merged.modules == (Q0, V0, Q1, V1)
    assert [merged[module].rank for module in merged] == [4, 3, 3, 7]
    for module in merged:
        expected = exact_delta([one, two], [2.0, -0.5], module)
        torch.testing.assert_close(merged[module].delta(torch.float64), expected, rtol=1e-6, atol=1e-6)


def test_default_is_svd_with_unit_weights() -> None:
    adapters = [random_adapter(1, rank=2), random_adapter(2, rank=3)]
    assert merge(adapters).fingerprint() == merge(adapters, "svd", [1.0, 1.0], 3).fingerprint()


def test_provenance_can_be_written_as_json() -> None:
    one = Adapter(random_adapter(1).factors, "base", {"path": "here/one", "fan_in_fan_out": True})
    merged = merge([one, random_adapter(2, base_model="other")], weights=(1, 0.5), rank=8, seed=7)
    assert merged.base_model == "base"
    assert json.loads(json.dumps(merged.provenance)) == {
        "method": "svd",
        "parameters": {},
        "weights": [1.0, 0.5],
        "rank": 8,
        "seed": 7,
        "rank_loss": {"relative": 0.0, "worst_module": None, "worst": 0.0},
        "sources": ["here/one", "adapter 2"],
        "fan_in_fan_out": True,
        "warnings": ["adapter 2 was trained on 'other', but here/one is for 'base'"],
    }


def test_merge_of_folders_can_be_written_and_read(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_adapter(random_adapter(seed, scaling=0.3), tmp_path / str(seed))
    merged = merge([read_adapter(tmp_path / "1"), read_adapter(tmp_path / "2")], "svd", rank=5)
    write_adapter(merged, tmp_path / "out")
    assert read_adapter(tmp_path / "out").fingerprint() == merged.fingerprint()


def test_what_the_rank_lost_is_written_beside_the_adapter(tmp_path: Path) -> None:
    adapters = [random_adapter(1), random_adapter(2)]
    merged = merge(adapters, "svd", rank=3)
    write_adapter(merged, tmp_path / "out")
    missing = {m: float((exact_delta(adapters, [1.0, 1.0], m) - merged[m].delta(torch.float64)).norm()) for m in merged}
    norms = {m: float(exact_delta(adapters, [1.0, 1.0], m).norm()) for m in merged}
    worst = max(merged, key=lambda m: missing[m] / norms[m])
    assert json.loads((tmp_path / "out" / "pomona.json").read_text())["rank_loss"] == {
        "relative": pytest.approx(math.hypot(*missing.values()) / math.hypot(*norms.values()), rel=1e-5),
        "worst_module": worst,
        "worst": pytest.approx(missing[worst] / norms[worst], rel=1e-5),
    }


def one_warning(merged: Adapter) -> str:
    found = merged.provenance["warnings"]
    assert isinstance(found, list)
    (warning,) = found
    return warning


def relative_loss(merged: Adapter) -> float:
    found = merged.provenance["rank_loss"]
    assert isinstance(found, dict)
    return found["relative"]


@pytest.mark.parametrize("method", ["svd", "ties", "knots"])
def test_the_rank_that_the_warning_names_is_the_least_that_loses_less_than_5_percent(method: str) -> None:
    adapters = [random_adapter(1, modules=[Q0, V0], rank=4), random_adapter(2, modules=[V0, Q1], rank=6)]
    warning = one_warning(merge(adapters, method, rank=2))
    enough = int(warning.partition("; rank ")[2].split()[0])
    lost, more_than_5, less = (relative_loss(merge(adapters, method, rank=rank)) for rank in (2, enough - 1, enough))
    fix = f"rank {enough} (`rank` {enough}) loses less than 5%"
    assert warning == f"the merge lost {100 * lost:.3g}% of its update to rank 2; {fix}"
    assert lost > more_than_5 >= 0.05 > less


def test_a_warning_names_no_rank_where_a_rank_is_no_cut() -> None:
    warning = one_warning(merge([random_adapter(1), random_adapter(2)], "tsv", rank=2))
    assert warning.endswith("to rank 2; a higher rank (`rank`) loses less")


def test_wrong_input() -> None:
    one, two = random_adapter(1), random_adapter(2)
    with pytest.raises(InputError, match="no adapters to merge"):
        merge([])
    with pytest.raises(InputError, match=r"2 adapters need 2 weights \(got \[1\.0\]\)"):
        merge([one, two], weights=[1.0])
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match=r"weights\[1\]: must be a finite number"):
            merge([one, two], weights=[1.0, bad])
    with pytest.raises(InputError, match=r"rank: must be at least 1 \(got 0\)"):
        merge([one, two], rank=0)
    with pytest.raises(InputError, match="Did you mean 'concat'"):
        merge([one, two], "concats")
    with pytest.raises(InputError, match="no parameter 'density'"):
        merge([one, two], "svd", density=0.5)
    with pytest.raises(InputError, match="20 x 12"):
        merge([one, random_adapter(2, in_features=5)])


def test_merged_values_are_finite_for_half_precision_extremes() -> None:
    one = random_adapter(1, dtype=torch.float16, scaling=60000.0)
    merged = merge([one, one], "concat")
    check_finite(merged)
    torch.testing.assert_close(merged[Q0].delta(torch.float64), exact_delta([one, one], [1.0, 1.0], Q0), rtol=1e-6, atol=1.0)
