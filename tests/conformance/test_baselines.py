"""Every registered baseline, and every merge method's short name: what the run, the tables and `pomona list` rely on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from tests.adapters.builders import random_adapter

from pomona.adapters import Adapter
from pomona.evaluation.baselines import Baseline, baselines, find_baseline
from pomona.merging import merge_methods

NAMES = [*baselines, *merge_methods]


class Bench:
    """A trainer that counts how often it trains."""

    def __init__(self) -> None:
        self.sources = [random_adapter(1), random_adapter(2)]
        self.weights = [1.0, -0.5]
        self.seed = 0
        self.trained: list[str] = []

    def train_new(self, system: str) -> Adapter:
        self.trained.append(system)
        return random_adapter(9)

    def train_merge(self, system: str, sources: Sequence[Adapter] | None = None) -> Adapter:
        return self.train_new(system)

    def train_recalibrated(self, system: str) -> Adapter:
        return self.train_new(system)

    def search(self, system: str, evaluations: int, find: Callable[[Callable[[Adapter], float]], Adapter]) -> Adapter:
        self.trained.append(system)
        return find(lambda adapter: sum(float((adapter.delta(module) - 1).square().mean()) for module in adapter))


@pytest.fixture(params=NAMES)
def baseline(request: pytest.FixtureRequest) -> Baseline:
    return find_baseline(request.param)


def test_it_trains_once_under_its_own_name_or_not_at_all(baseline: Baseline) -> None:
    bench = Bench()
    baseline.make("its name", bench)
    assert bench.trained == (["its name"] if baseline.trains else [])


def test_what_it_makes_fits_the_sources_model(baseline: Baseline) -> None:
    bench = Bench()
    made = baseline.make("x", bench)
    if made is not None:
        assert made.modules == bench.sources[0].modules
        for module in made:
            assert made.delta(module).shape == bench.sources[0].delta(module).shape


def test_it_leaves_the_sources_alone_and_makes_the_same_again(baseline: Baseline) -> None:
    bench = Bench()
    before = [source.fingerprint() for source in bench.sources]
    first, again = baseline.make("x", bench), baseline.make("x", bench)
    assert (first and first.fingerprint()) == (again and again.fingerprint())
    assert [source.fingerprint() for source in bench.sources] == before


def test_it_can_be_distinguished_in_a_table(baseline: Baseline) -> None:
    assert baseline.label == baseline.label.strip()
    assert 0 < len(baseline.label) <= 24  # a column of the command's table
    assert baseline.description[0].islower()
    assert not baseline.description.endswith(".")
    others = {find_baseline(name).label for name in NAMES if find_baseline(name) != baseline} | {"Pomona"}
    assert baseline.label not in others
