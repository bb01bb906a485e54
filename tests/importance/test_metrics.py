"""Each metric against plain loops over its formula, and by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pomona.adapters.factors import Factors
from pomona.errors import InputError
from pomona.importance import (
    Activation,
    DeltaSensitivity,
    FactorPair,
    Gradient,
    GradientActivation,
    GradientSmoothed,
    ImportanceMetric,
    Magnitude,
    ModuleStatistics,
    Smoothed,
    Wanda,
    importance_metrics,
)

A_RI = torch.tensor([[1.0, -2.0, 0.0], [-0.5, 4.0, 3.0]])
B_OR = torch.tensor([[1.0, -1.0], [0.0, 2.0], [-3.0, 0.5], [0.25, -8.0]])
GRADIENT = FactorPair(
    torch.tensor([[-3.0, 0.5, 2.0], [4.0, 0.0, -1.0]]), torch.tensor([[2.0, 4.0], [1.0, -1.0], [0.0, -2.0], [-8.0, 0.5]])
)
STATISTICS = ModuleStatistics(torch.tensor([2.0, 0.5, 10.0]), torch.tensor([4.0, 0.25]), GRADIENT)

OUTPUTS, INPUTS, RANK = 6, 9, 4
Rows = list[list[float]]


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


class Oracle:
    """The formulas of Pomona's own metrics, an entry at a time, on Python's own floats. One that is added brings its own test."""

    def __init__(self, factors: Factors, statistics: ModuleStatistics) -> None:
        assert statistics.gradient is not None
        assert statistics.smoothed is not None
        self.A, self.B = factors.A.tolist(), factors.B.tolist()
        self.x, self.h = statistics.input_norm_I.tolist(), statistics.hidden_norm_R.tolist()
        self.gA, self.gB = (one.tolist() for one in statistics.gradient)
        (self.mA, self.mB), (self.uA, self.uB) = ([one.tolist() for one in pair] for pair in statistics.smoothed)
        self.delta = [[sum(self.B[o][r] * self.A[r][i] for r in range(RANK)) for i in range(INPUTS)] for o in range(OUTPUTS)]

    def table(self, A: Callable[[int, int], float], B: Callable[[int, int], float]) -> tuple[Rows, Rows]:
        return [[A(r, i) for i in range(INPUTS)] for r in range(RANK)], [[B(o, r) for r in range(RANK)] for o in range(OUTPUTS)]

    def magnitude(self) -> tuple[Rows, Rows]:
        return self.table(lambda r, i: abs(self.A[r][i]), lambda o, r: abs(self.B[o][r]))

    def wanda(self) -> tuple[Rows, Rows]:
        return self.table(lambda r, i: abs(self.A[r][i]) * self.x[i], lambda o, r: abs(self.B[o][r]) * self.h[r])

    def activation(self) -> tuple[Rows, Rows]:
        return self.table(lambda r, i: self.x[i], lambda o, r: self.h[r])

    def gradient(self) -> tuple[Rows, Rows]:
        return self.table(lambda r, i: abs(self.A[r][i] * self.gA[r][i]), lambda o, r: abs(self.B[o][r] * self.gB[o][r]))

    def gradient_activation(self) -> tuple[Rows, Rows]:
        return self.table(lambda r, i: abs(self.gA[r][i]) * self.x[i], lambda o, r: abs(self.gB[o][r]) * self.h[r])

    def gradient_smoothed(self) -> tuple[Rows, Rows]:
        return self.table(lambda r, i: self.mA[r][i] * self.uA[r][i], lambda o, r: self.mB[o][r] * self.uB[o][r])

    def delta_sensitivity(self) -> tuple[Rows, Rows]:
        return self.table(
            lambda r, i: abs(sum(self.B[o][r] * _sign(self.delta[o][i]) * self.x[i] for o in range(OUTPUTS))),
            lambda o, r: abs(sum(_sign(self.delta[o][i]) * self.x[i] * self.A[r][i] for i in range(INPUTS))),
        )


def _case(seed: int) -> tuple[Factors, ModuleStatistics]:
    generator = torch.Generator().manual_seed(seed)

    def pair() -> FactorPair:
        shapes = ((RANK, INPUTS), (OUTPUTS, RANK))
        return FactorPair(*(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))

    A, B = pair()
    A[0, ::2] = 0.0
    B[1] = 0.0
    norms = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (INPUTS, RANK))
    averages = Smoothed(FactorPair(*(one.abs() for one in pair())), FactorPair(*(one.abs() for one in pair())))
    return Factors(A, B), ModuleStatistics(*norms, gradient=pair(), smoothed=averages)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", [name for name in vars(Oracle) if name in importance_metrics])
def test_every_metric_equals_plain_loops(name: str, seed: int) -> None:
    factors, statistics = _case(seed)
    for scores, expected in zip(
        importance_metrics.create(name).scores(factors, statistics), getattr(Oracle(factors, statistics), name)(), strict=True
    ):
        torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("metric", "expected_A", "expected_B"),
    [
        (Magnitude(), [[1.0, 2.0, 0.0], [0.5, 4.0, 3.0]], [[1.0, 1.0], [0.0, 2.0], [3.0, 0.5], [0.25, 8.0]]),
        (Wanda(), [[2.0, 1.0, 0.0], [1.0, 2.0, 30.0]], [[4.0, 0.25], [0.0, 0.5], [12.0, 0.125], [1.0, 2.0]]),
        (Activation(), [[2.0, 0.5, 10.0]] * 2, [[4.0, 0.25]] * 4),
        (Gradient(), [[3.0, 1.0, 0.0], [2.0, 0.0, 3.0]], [[2.0, 4.0], [0.0, 2.0], [0.0, 1.0], [2.0, 4.0]]),
        (GradientActivation(), [[6.0, 0.25, 20.0], [8.0, 0.0, 10.0]], [[8.0, 1.0], [4.0, 0.25], [0.0, 0.5], [32.0, 0.125]]),
        # sign(B A) = [[+, -, -], [-, +, +], [-, +, +], [+, -, -]]
        (DeltaSensitivity(), [[4.25 * 2, 4.25 * 0.5, 42.5], [11.5 * 2, 11.5 * 0.5, 115.0]], [[3.0, 33.0]] * 4),
    ],
)
def test_by_hand(metric: ImportanceMetric, expected_A: Rows, expected_B: Rows) -> None:
    scores_A, scores_B = metric.scores(Factors(A_RI, B_OR), STATISTICS)
    assert scores_A.tolist() == expected_A
    assert scores_B.tolist() == expected_B


def test_wanda_is_the_norm_of_what_an_entry_contributes() -> None:
    generator = torch.Generator().manual_seed(3)
    factors = Factors(torch.randn(2, 5, generator=generator).double(), torch.randn(4, 2, generator=generator).double())
    x_TI = torch.randn(11, 5, generator=generator).double()
    statistics = ModuleStatistics(x_TI.norm(dim=0), (x_TI @ factors.A.T).norm(dim=0))
    scores_A, scores_B = Wanda().scores(factors, statistics)
    for r in range(2):
        for i in range(5):
            assert scores_A[r, i].item() == pytest.approx((factors.A[r, i] * x_TI[:, i]).norm().item(), rel=1e-12)
        for o in range(4):
            contribution = factors.B[o, r] * (x_TI @ factors.A.T)[:, r]
            assert scores_B[o, r].item() == pytest.approx(contribution.norm().item(), rel=1e-12)


def test_gradient_is_the_loss_that_an_entrys_removal_costs_where_the_loss_is_linear_in_it() -> None:
    generator = torch.Generator().manual_seed(4)
    A, B = torch.randn(2, 5, generator=generator).double(), torch.randn(4, 2, generator=generator).double()
    weight_OI = torch.randn(4, 5, generator=generator).double()

    def loss(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return (weight_OI * (B @ A)).sum()

    # The loss is linear in A, and in B: the first-order estimate is the loss's exact change.
    gradient = FactorPair(*torch.autograd.grad(loss(A.requires_grad_(), B.requires_grad_()), (A, B)))
    A, B = A.detach(), B.detach()
    scores_A, scores_B = Gradient().scores(Factors(A, B), ModuleStatistics(torch.ones(5), torch.ones(2), gradient))
    for r in range(2):
        for i in range(5):
            without = A.clone()
            without[r, i] = 0.0
            assert scores_A[r, i].item() == pytest.approx(abs(float(loss(A, B) - loss(without, B))), rel=1e-9)
        for o in range(4):
            without = B.clone()
            without[o, r] = 0.0
            assert scores_B[o, r].item() == pytest.approx(abs(float(loss(A, B) - loss(A, without))), rel=1e-9)


def test_smoothed_prefers_entries_of_large_and_variable_sensitivity() -> None:
    """Three entries over four steps: steady, as large on average but unsteady, and small."""
    metric = GradientSmoothed(beta_mean=0.5, beta_uncertainty=0.25)
    beta_mean, beta_uncertainty = metric.smoothing
    assert (beta_mean, beta_uncertainty) == (0.5, 0.25)
    mean, uncertainty = torch.zeros(3), torch.zeros(3)
    for sensitivity in torch.tensor([[2.0, 4.0, 0.5], [2.0, 0.0, 0.5], [2.0, 4.0, 0.5], [2.0, 0.0, 0.5]]):
        mean = beta_mean * mean + (1 - beta_mean) * sensitivity
        uncertainty = beta_uncertainty * uncertainty + (1 - beta_uncertainty) * (sensitivity - mean).abs()
    # Steady: means 1, 1.5, 1.75, 1.875; uncertainties 0.75, 0.5625, 0.328125, 0.17578125.
    # Unsteady: means 2, 1, 2.5, 1.25; uncertainties 1.5, 1.125, 1.40625, 1.2890625.
    averages = Smoothed(FactorPair(mean[None], mean[:2, None]), FactorPair(uncertainty[None], uncertainty[:2, None]))
    factors = Factors(torch.zeros(1, 3), torch.zeros(2, 1))
    scores_A, scores_B = metric.scores(factors, ModuleStatistics(torch.ones(3), torch.ones(1), smoothed=averages))
    assert scores_A.tolist() == [[1.875 * 0.17578125, 1.25 * 1.2890625, (1.875 * 0.17578125) / 16]]
    assert scores_B.tolist() == [[1.875 * 0.17578125], [1.25 * 1.2890625]]


def test_every_metric_that_comes_along_has_an_oracle() -> None:
    """A name that is spelt otherwise here would test nothing."""
    own = {name for name, value in vars(Oracle).items() if callable(value) and not name.startswith("_") and name != "table"}
    assert own == {
        "activation",
        "delta_sensitivity",
        "gradient",
        "gradient_activation",
        "gradient_smoothed",
        "magnitude",
        "wanda",
    }
    assert own <= set(importance_metrics)


def test_smoothing_is_adaloras_by_default() -> None:
    assert GradientSmoothed().smoothing == (0.85, 0.85)
    assert GradientSmoothed(0.0, 0.5).smoothing == (0.0, 0.5)


@pytest.mark.parametrize("field", ["beta_mean", "beta_uncertainty"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_shares_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"must be in \[0, 1\) \(got {value}\)") as caught:
        importance_metrics.create("gradient_smoothed", {field: value})
    assert field in str(caught.value)


def test_narrow_tensors_lose_nothing() -> None:
    """In bf16 these products would be rounded, and entries of different importance would tie."""
    A, B = torch.tensor([[1.0078125, 1.0]], dtype=torch.bfloat16), torch.tensor([[1.0078125]], dtype=torch.bfloat16)
    norms = (torch.tensor([1.0078125, 1.0], dtype=torch.bfloat16), torch.tensor([1.0078125], dtype=torch.bfloat16))
    pair = FactorPair(A, B)
    statistics = ModuleStatistics(*norms, gradient=pair, smoothed=Smoothed(pair, pair))
    for metric in (Wanda(), Gradient(), GradientActivation(), GradientSmoothed()):
        scores_A, scores_B = metric.scores(Factors(A, B), statistics)
        assert scores_A.dtype == scores_B.dtype == torch.float32
        assert scores_A.tolist() == [[1.0078125**2, 1.0]]
        assert scores_B.tolist() == [[1.0078125**2]]
