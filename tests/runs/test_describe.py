"""What a record says of each system: what a static merge lost to its rank."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.adapters.builders import random_adapter

from pomona.merging import merge
from pomona.runs.describe import describe_systems
from pomona.runs.record import SystemDescription


def test_a_static_merge_says_what_its_rank_lost_and_nothing_else_does() -> None:
    sources = [random_adapter(1), random_adapter(2)]
    systems = {"svd": merge(sources, "svd"), "concat": merge(sources, "concat"), "lorahub": sources[0], "zero_shot": None}
    described = {name: SystemDescription(label=name, description="") for name in systems}
    workshop = SimpleNamespace(backbone=SimpleNamespace(shapes=dict), trained={})
    describe_systems(SimpleNamespace(systems=described, warnings=[]), workshop, systems)  # pyright: ignore[reportArgumentType]
    lost = systems["svd"].provenance["rank_loss"]["relative"]  # pyright: ignore
    assert lost > 0.1
    found = {name: one.rank_loss for name, one in described.items()}
    assert found == {"svd": pytest.approx(lost), "concat": 0.0, "lorahub": None, "zero_shot": None}
