"""LoRAHub: what is composed, what is minimised, and how the search goes about it."""

from __future__ import annotations

import random
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.builders import Q0, Q1, V0, random_adapter
from torch import Tensor

from pomona.adapters import Adapter, Factors
from pomona.errors import InputError, MissingPackageError
from pomona.evaluation import lorahub
from pomona.evaluation.baselines import find_baseline
from pomona.evaluation.lorahub import Composition, LoraHub, search
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Recipe


@dataclass
class Bench:
    """A trainer whose loss is of the test's making; notes what the search asks it."""

    sources: list[Adapter]
    loss: Callable[[Adapter], float]
    weights: list[float] = field(default_factory=list)
    seed: int = 7
    asked: list[Adapter] = field(default_factory=list)
    announced: tuple[str, int] | None = None

    def train_new(self, system: str) -> Adapter:
        raise AssertionError("training was asked for")

    def train_merge(self, system: str, sources: Sequence[Adapter] | None = None) -> Adapter:
        return self.train_new(system)

    def train_recalibrated(self, system: str) -> Adapter:
        return self.train_new(system)

    def search(self, system: str, evaluations: int, find: Callable[[Callable[[Adapter], float]], Adapter]) -> Adapter:
        self.announced = (system, evaluations)

        def loss(adapter: Adapter) -> float:
            self.asked.append(adapter)
            return self.loss(adapter)

        return find(loss)


def unit(place: int, of: int) -> Adapter:
    """One rank-one module whose A and B are the unit vector: composed, A and B are the weights themselves."""
    row = torch.eye(of)[place : place + 1]
    return Adapter({Q0: Factors(row, row.T)})


def tensors(adapter: Adapter) -> list[Tensor]:
    return [matrix for module in adapter for matrix in (adapter[module].A, adapter[module].B)]


# What is composed ---------------------------------------------------------------------------------------------------------


def test_factors_are_summed_with_the_weights_and_the_roots_of_the_scalings() -> None:
    narrow = Factors(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), scaling=4.0)
    wide = Factors(torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    made = Composition([Adapter({Q0: narrow}), Adapter({Q0: wide})])([0.5, -1.0])
    # 0.5 * 2 * [1 2] - [1 0] in the first row; the narrow one adds nothing to the second.
    assert made[Q0].A.tolist() == [[0.0, 2.0], [0.0, -1.0]]
    assert made[Q0].B.tolist() == [[2.0, -2.0], [1.0, -4.0]]
    assert made[Q0].scaling == 1.0


@settings(max_examples=25, deadline=None)
@given(weights=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=4), scaling=st.floats(0.1, 4.0), seed=st.integers(0, 99))
def test_the_delta_is_the_double_sum_with_cross_terms(weights: list[float], scaling: float, seed: int) -> None:
    sources = [random_adapter(seed + place, rank=3, scaling=scaling * (place + 1)) for place in range(len(weights))]
    made = Composition(sources)(weights)
    expected = torch.zeros(20, 12, dtype=torch.float64)
    for i, one in enumerate(sources):
        for j, other in enumerate(sources):
            share = weights[i] * weights[j] * (one[V0].scaling * other[V0].scaling) ** 0.5
            expected += share * (one[V0].B.double() @ other[V0].A.double())
    assert torch.allclose(made.delta(V0).double(), expected, rtol=1e-4, atol=1e-4)
    assert {tensor.dtype for tensor in tensors(made)} == {torch.float32}


@pytest.mark.parametrize("weight", [1.0, -1.0])
@pytest.mark.parametrize("scaling", [2.0, -2.0])
def test_an_adapter_alone_is_scaled_by_the_square_of_its_weight(weight: float, scaling: float) -> None:
    source = random_adapter(1, scaling=scaling)
    assert torch.allclose(Composition([source])([weight]).delta(Q0), source.delta(Q0), rtol=1e-5, atol=1e-5)


def test_an_adapter_without_a_module_adds_nothing_to_it() -> None:
    sources = [random_adapter(1, modules=[V0, Q0], base_model=None), random_adapter(2, modules=[Q1, Q0], base_model="base")]
    made = Composition(sources)([2.0, 3.0])
    assert made.modules == (Q0, V0, Q1)
    assert torch.allclose(made.delta(V0), 4 * sources[0].delta(V0), atol=1e-4)
    assert torch.allclose(made.delta(Q1), 9 * sources[1].delta(Q1), atol=1e-4)
    assert made.base_model == "base"


def test_it_keeps_what_its_sources_say_about_the_model() -> None:
    table, layer = random_adapter(1, modules=["wte", Q0]), random_adapter(2, modules=[Q0])
    first = Adapter(table.factors, "base", {"fan_in_fan_out": True, "path": "here"}, frozenset({"wte"}))
    made = Composition([layer, first])([0.5, 0.25])
    assert made.embeddings == {"wte"}
    assert made.provenance["fan_in_fan_out"] is True
    assert made.provenance["weights"] == [0.5, 0.25]
    assert made.provenance["method"] == "lorahub"


# What is minimised --------------------------------------------------------------------------------------------------------


def test_the_objective_is_the_loss_and_a_penalty_on_the_sum_of_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def one_look(
        objective: Callable[[Sequence[float]], float], count: int, evaluations: int, bound: float, seed: int
    ) -> list[float]:
        assert (count, evaluations, bound) == (2, 40, 1.5)
        seen.append(objective([0.5, -1.0]))
        return [0.25, 0.75]

    monkeypatch.setattr(lorahub, "search", one_look)
    bench = Bench([unit(0, 2), unit(1, 2)], lambda adapter: float(adapter[Q0].A.sum()) + 3)
    made = LoraHub().make("its name", bench)
    assert seen == [pytest.approx(0.5 - 1.0 + 3 + 0.05 * 1.5, abs=1e-7)]
    assert made is not None
    assert made[Q0].A.tolist() == [[0.25, 0.75]]
    assert bench.announced == ("its name", 40)


@pytest.mark.parametrize("target", [(0.8,), (0.9, -0.6), (0.4, 1.0, -1.2)])
def test_the_weights_found_are_near_the_least_objective(target: tuple[float, ...]) -> None:
    wanted = torch.tensor([target])
    bench = Bench(
        [unit(place, len(target)) for place in range(len(target))], lambda adapter: float((adapter[Q0].A - wanted).square().sum())
    )
    made = LoraHub().make("lorahub", bench)
    assert made is not None
    # (w - t)^2 + 0.05 |w| is least where 2 (w - t) = -0.05 sign(w).
    least = wanted - 0.025 * wanted.sign()
    assert torch.allclose(made[Q0].A, least, atol=0.02)
    assert torch.equal(made[Q0].A.T, made[Q0].B)
    assert len(bench.asked) == 40


def test_weights_that_would_be_larger_stop_at_the_bound() -> None:
    bench = Bench([unit(0, 2), unit(1, 2)], lambda adapter: float((adapter[Q0].A - torch.tensor([[3.0, -3.0]])).square().sum()))
    made = LoraHub().make("lorahub", bench)
    assert made is not None
    assert torch.allclose(made[Q0].A, torch.tensor([[1.5, -1.5]]), atol=0.02)
    assert all(float(adapter[Q0].A.abs().max()) <= 1.5 for adapter in bench.asked)


def test_where_the_sources_only_harm_the_answer_is_nothing() -> None:
    bench = Bench([unit(0, 2), unit(1, 2)], lambda adapter: float(adapter[Q0].A.abs().sum()))
    made = LoraHub().make("lorahub", bench)
    assert made is not None
    assert made[Q0].A.tolist() == [[0.0, 0.0]]


# The search ---------------------------------------------------------------------------------------------------------------


def slope(weights: Sequence[float]) -> float:
    """Smooth and lopsided, with its least value inside the bounds."""
    return sum((weight - 0.3 * place) ** 4 + (weight + 0.1) ** 2 for place, weight in enumerate(weights))


def tried(count: int, evaluations: int = 40, bound: float = 1.5, seed: int = 0) -> tuple[list[list[float]], list[float]]:
    seen: list[list[float]] = []

    def objective(weights: Sequence[float]) -> float:
        seen.append(list(weights))
        return slope(weights)

    return seen, search(objective, count, evaluations, bound, seed)


@pytest.mark.parametrize(("count", "evaluations"), [(1, 40), (2, 40), (5, 40), (50, 40), (3, 1), (2, 2), (1, 50)])
def test_it_begins_at_zero_asks_exactly_so_often_and_returns_the_best(count: int, evaluations: int) -> None:
    seen, found = tried(count, evaluations, bound=0.8)
    assert len(seen) == evaluations
    assert found == min(seen, key=slope)
    assert all(abs(weight) <= 0.8 for weights in seen for weight in weights)
    if evaluations == 40:
        assert seen[0] == [0.0] * count


def set_global_state(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize(("count", "evaluations"), [(1, 40), (1, 50), (4, 40), (30, 40)])
def test_the_search_is_the_same_whatever_the_global_random_state(count: int, evaluations: int) -> None:
    set_global_state(1)
    first = tried(count, evaluations)
    set_global_state(2)
    assert tried(count, evaluations) == first


def test_what_draws_draws_by_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    nevergrad = pytest.importorskip("nevergrad")
    monkeypatch.setattr(nevergrad.optimizers, "NGOpt", nevergrad.optimizers.RandomSearch)
    set_global_state(1)
    first = tried(2, seed=2**62 + 1)
    set_global_state(2)
    assert tried(2, seed=2**62 + 1) == first
    assert tried(2, seed=2**62)[0] != first[0]


def test_a_search_that_is_broken_off_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    calls = 0

    def objective(weights: Sequence[float]) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return slope(weights)

    with pytest.raises(KeyboardInterrupt) as caught:
        search(objective, 2, 40, 1.5, 0)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
    assert set(threading.enumerate()) <= before
    assert caught.value.__traceback__ is not None  # its frames are still there, and hold nothing


def test_warnings_of_the_objective_are_not_swallowed() -> None:
    def objective(weights: Sequence[float]) -> float:
        warnings.warn("something about the model", UserWarning, stacklevel=1)
        return 0.0

    with pytest.warns(UserWarning, match="something about the model"):
        search(objective, 1, 2, 1.5, 0)


# What it needs ------------------------------------------------------------------------------------------------------------


def test_without_nevergrad_the_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "data": {"train": "x.jsonl"},
        "sources": [{"name": "a", "adapter": "a"}],
        "evaluation": {"baselines": ["zero_shot", "lorahub"]},
    }
    assert parse_recipe(content, Recipe).evaluation.baselines == ("zero_shot", "lorahub")
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(MissingPackageError, match=r'pip install "pomona\[search\]"'):
        find_baseline("lorahub")
    with pytest.raises(InputError) as caught:
        parse_recipe(content, Recipe, (), "the.yaml")
    assert str(caught.value) == (
        "the.yaml: the baseline lorahub needs nevergrad, which is not installed. "
        'Install it with `pip install "pomona[search]"`, or leave out the baseline.'
    )
    assert find_baseline("zero_shot").label == "Zero shot"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoraHub(evaluations=0), "evaluations: must be from 1 to 50 (got 0)"),
        (lambda: LoraHub(evaluations=51), "evaluations: must be from 1 to 50 (got 51)"),
        (lambda: LoraHub(bound=0.0), "bound: must be above 0 (got 0.0)"),
        (lambda: LoraHub(bound=float("nan")), "bound: must be above 0 (got nan)"),
        (lambda: LoraHub(penalty=-0.1), "penalty: must be at least 0 (got -0.1)"),
    ],
)
def test_hyperparameters_out_of_range(make: Callable[[], LoraHub], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message
