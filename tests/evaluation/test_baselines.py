"""What the main job is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from tests.adapters.builders import Q0, exact_delta, random_adapter

from pomona.adapters import Adapter
from pomona.errors import InputError
from pomona.evaluation import RandomSources
from pomona.evaluation.baselines import MergeFinetune, StaticMerge, TargetLora, ZeroShot, baselines, find_baseline
from pomona.evaluation.target_recalibrated import TargetRecalibrated
from pomona.merging import merge, merge_methods


@dataclass
class Bench:
    """A trainer that notes what it is asked for."""

    sources: list[Adapter] = field(default_factory=lambda: [random_adapter(1), random_adapter(2)])
    weights: list[float] = field(default_factory=lambda: [1.0, 0.5])
    seed: int = 7
    asked: list[tuple[str, str]] = field(default_factory=list)
    merged: Sequence[Adapter] | None = None
    made: Adapter = field(default_factory=lambda: random_adapter(3))

    def train_new(self, system: str) -> Adapter:
        self.asked.append(("new", system))
        return self.made

    def train_merge(self, system: str, sources: Sequence[Adapter] | None = None) -> Adapter:
        self.asked.append(("merge", system))
        self.merged = sources
        return self.made

    def train_recalibrated(self, system: str) -> Adapter:
        self.asked.append(("recalibrated", system))
        return self.made

    def search(self, system: str, evaluations: int, find: Callable[[Callable[[Adapter], float]], Adapter]) -> Adapter:
        raise AssertionError("a search was asked for")


def test_zero_shot_is_no_adapter() -> None:
    bench = Bench()
    assert ZeroShot().make("zero_shot", bench) is None
    assert bench.asked == []


def test_trained_ones_ask_for_training_under_their_name() -> None:
    bench = Bench()
    assert TargetLora().make("t", bench) is bench.made
    assert MergeFinetune().make("m", bench) is bench.made
    assert TargetRecalibrated().make("r", bench) is bench.made
    assert bench.asked == [("new", "t"), ("merge", "m"), ("recalibrated", "r")]


def test_random_sources_are_noise_of_the_sources_shapes_and_sizes() -> None:
    bench = Bench(sources=[random_adapter(1, rank=64), random_adapter(2, rank=64)])
    assert RandomSources().make("r", bench) is bench.made
    assert bench.asked == [("merge", "r")]
    assert bench.merged is not None
    for source, noise in zip(bench.sources, bench.merged, strict=True):
        assert noise.modules == source.modules
        for module in source:
            one, other = source[module], noise[module]
            assert other.scaling == one.scaling
            for ours, theirs in zip((other.A, other.B), (one.A, one.B), strict=True):
                assert ours.shape == theirs.shape
                expected = float(theirs.double().square().mean().sqrt())
                assert float(ours.double().std()) == pytest.approx(expected, rel=5 / (2 * ours.numel()) ** 0.5)
                related = torch.corrcoef(torch.stack([ours.flatten().double(), theirs.flatten().double()]))[0, 1]
                assert abs(float(related)) < 5 / ours.numel() ** 0.5
    first, second = bench.merged
    assert not torch.equal(first[first.modules[0]].A, second[second.modules[0]].A)


def test_the_noise_of_random_sources_follows_the_seed() -> None:
    prints = []
    for seed in (7, 7, 8):
        bench = Bench(seed=seed)
        RandomSources().make("r", bench)
        prints.append([one.fingerprint() for one in bench.merged or ()])
    assert prints[0] == prints[1]
    assert not {*prints[0]} & {*prints[2]}


@pytest.mark.parametrize("method", list(merge_methods))
def test_a_static_merge_is_the_method_s_with_the_run_s_weights_and_seed(method: str) -> None:
    bench = Bench()
    made = find_baseline(method).make(method, bench)
    assert made is not None
    assert bench.asked == []
    expected = merge(bench.sources, method, [1.0, 0.5], rank=4 if method == "svd" else None, seed=7)
    assert made.fingerprint() == expected.fingerprint()


def test_the_concatenation_is_the_exact_sum() -> None:
    bench = Bench()
    made = find_baseline("concat").make("concat", bench)
    assert made is not None
    assert torch.allclose(made.delta(Q0).double(), exact_delta(bench.sources, bench.weights, Q0), atol=1e-5)


def test_svd_keeps_to_the_largest_source_s_rank() -> None:
    bench = Bench(sources=[random_adapter(1, rank=2), random_adapter(2, rank=5)])
    made = StaticMerge(method="svd").make("svd", bench)
    assert made is not None
    assert {made[module].rank for module in made} == {5}


def test_names() -> None:
    assert find_baseline("zero_shot") == ZeroShot()
    assert find_baseline("linear") == StaticMerge(method="linear")
    assert find_baseline("linear").label == "Merge (linear)"
    with pytest.raises(InputError, match=r"no such baseline \(got 'linaer'\)\. Did you mean 'linear'\?"):
        find_baseline("linaer")
    with pytest.raises(InputError, match="no such merge method"):
        StaticMerge(method="nothing")
    assert not set(baselines) & set(merge_methods)  # else a merge method could not be named
