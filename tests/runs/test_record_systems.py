"""What a record says of each system: what a static merge lost to its rank."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tests.adapters.builders import exact_delta, random_adapter

from pomona.merging import merge
from pomona.runs.record import SystemDescription
from pomona.runs.record_systems import describe_systems


def test_a_static_merge_and_training_from_it_report_the_rank_loss() -> None:
    sources = [random_adapter(1), random_adapter(2)]
    svd = merge(sources, "svd")
    systems = {"svd": svd, "concat": merge(sources, "concat"), "lorahub": sources[0], "pomona": sources[0], "zero_shot": None}
    described = {name: SystemDescription(label=name, description="") for name in systems}
    trainer = SimpleNamespace(backbone=SimpleNamespace(shapes=dict), trained={}, starts={"pomona": svd})
    describe_systems(SimpleNamespace(systems=described, warnings=[]), trainer, systems)  # pyright: ignore[reportArgumentType]
    full = {m: exact_delta(sources, [1.0, 1.0], m) for m in sources[0]}
    missing = math.hypot(*(float((full[m] - svd[m].delta(torch.float64)).norm()) for m in full))
    lost = missing / math.hypot(*(float(one.norm()) for one in full.values()))
    found = {name: one.rank_loss for name, one in described.items()}
    assert found == {
        "svd": pytest.approx(lost, rel=1e-5),
        "pomona": pytest.approx(lost, rel=1e-5),
        "concat": 0.0,
        "lorahub": None,
        "zero_shot": None,
    }
