"""Every registered importance metric against what `importance/base.py` promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.importance.memory import peak_bytes
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.importance import FactorPair, ImportanceMetric, ModuleStatistics, Smoothed, StackedFactors, importance_metrics


@pytest.fixture(params=list(importance_metrics))
def metric(request: pytest.FixtureRequest) -> ImportanceMetric:
    return importance_metrics.create(request.param)


def _case(
    dtype: torch.dtype = torch.float32, outputs: int = 5, inputs: int = 7, rank: int = 3, seed: int = 0
) -> tuple[Factors, ModuleStatistics]:
    generator = torch.Generator().manual_seed(seed)

    def pair() -> FactorPair:
        return FactorPair(*(torch.randn(shape, generator=generator).to(dtype) for shape in ((rank, inputs), (outputs, rank))))

    A_RI, B_OR = pair()
    norms = torch.rand(inputs, generator=generator), torch.rand(rank, generator=generator)
    averages = Smoothed(_absolute(pair()), _absolute(pair()))
    return Factors(A_RI.requires_grad_(), B_OR.requires_grad_()), ModuleStatistics(*norms, pair(), averages)


def _absolute(pair: FactorPair) -> FactorPair:
    return FactorPair(pair.A.abs(), pair.B.abs())


def _flipped(pair: FactorPair) -> FactorPair:
    return FactorPair(pair.A.flip(0, 1), pair.B.flip(0, 1))


def _tensors(factors: Factors, statistics: ModuleStatistics) -> list[Tensor]:
    assert statistics.gradient is not None
    assert statistics.smoothed is not None
    norms = (statistics.input_norm_I, statistics.hidden_norm_R)
    return [factors.A, factors.B, *norms, *statistics.gradient, *statistics.smoothed.mean, *statistics.smoothed.uncertainty]


def _same_scores(metric: ImportanceMetric, factors: Factors, statistics: ModuleStatistics, other: ModuleStatistics) -> bool:
    pairs = zip(metric.scores(factors, statistics), metric.scores(factors, other), strict=True)
    return all(torch.equal(one, another) for one, another in pairs)


def test_shape_sign_and_no_gradient(metric: ImportanceMetric) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        factors, statistics = _case(dtype)
        for scores, factor in zip(metric.scores(factors, statistics), (factors.A, factors.B), strict=True):
            assert scores.shape == factor.shape
            assert scores.dtype.is_floating_point
            assert not scores.requires_grad
            assert bool((scores >= 0).all())
            assert float(scores.max()) > 0


def test_inputs_stay_as_they_are(metric: ImportanceMetric) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        factors, statistics = _case(dtype)
        tensors = _tensors(factors, statistics)
        before = [tensor.detach().clone() for tensor in tensors]
        for scores in metric.scores(factors, statistics):
            scores.add_(1.0)
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


def test_a_common_constant_of_the_norms_changes_no_order(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    scaled = replace(statistics, input_norm_I=statistics.input_norm_I * 64.0, hidden_norm_R=statistics.hidden_norm_R * 64.0)
    for one, other in zip(metric.scores(factors, statistics), metric.scores(factors, scaled), strict=True):
        assert torch.equal(one.flatten().argsort(stable=True), other.flatten().argsort(stable=True))


def test_activations_matter_exactly_where_the_metric_says_so(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    other = replace(statistics, input_norm_I=statistics.input_norm_I.flip(0), hidden_norm_R=statistics.hidden_norm_R.flip(0))
    assert _same_scores(metric, factors, statistics, other) is not metric.needs_activations


def test_the_gradient_matters_exactly_where_the_metric_says_so(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    assert statistics.gradient is not None
    other = replace(statistics, gradient=_flipped(statistics.gradient))
    assert _same_scores(metric, factors, statistics, other) is not metric.needs_gradient


@pytest.mark.parametrize("which", ["mean", "uncertainty"])
def test_averages_matter_exactly_where_the_metric_says_so(metric: ImportanceMetric, which: str) -> None:
    factors, statistics = _case()
    assert statistics.smoothed is not None
    averages = statistics.smoothed._replace(**{which: _flipped(getattr(statistics.smoothed, which))})
    same = _same_scores(metric, factors, statistics, replace(statistics, smoothed=averages))
    assert same is (metric.smoothing is None)


def test_what_is_not_asked_for_may_lack_and_what_is_asked_for_is_named(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    for what, needed in (("gradient", metric.needs_gradient), ("smoothed", metric.smoothing is not None)):
        without = replace(statistics, **{what: None})
        if needed:
            with pytest.raises(ValueError, match=f"the metric reads the {what}.*, which the statistics lack"):
                metric.scores(factors, without)
        else:
            assert _same_scores(metric, factors, statistics, without)


def test_a_factor_of_zeros_has_no_importance_where_values_count(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    zeros = Factors(torch.zeros_like(factors.A), torch.zeros_like(factors.B))
    for index, pair in enumerate((Factors(zeros.A, factors.B), Factors(factors.A, zeros.B))):
        assert bool(metric.scores(pair, statistics)[index].any()) is not metric.zero_is_unimportant


def test_no_dense_matrix_is_ever_held(metric: ImportanceMetric) -> None:
    factors, statistics = _case(outputs=2048, inputs=2048, rank=4)
    # One byte an entry: less than any dense matrix, even of truth values.
    assert peak_bytes(lambda: metric.scores(factors, statistics), _tensors(factors, statistics)) < 2048 * 2048


def test_the_same_every_time(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    assert _same_scores(metric, factors, statistics, statistics)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stack_of_modules_gets_the_scores_of_each(metric: ImportanceMetric, dtype: torch.dtype) -> None:
    cases = [_case(dtype, seed=seed) for seed in range(3)]
    tensors = [torch.stack([one.detach() for one in same]) for same in zip(*(_tensors(*case) for case in cases), strict=True)]
    A, B, inputs, hidden, *pairs = tensors
    gradient, mean, uncertainty = (FactorPair(*pairs[first : first + 2]) for first in (0, 2, 4))
    factors, statistics = StackedFactors(A, B), ModuleStatistics(inputs, hidden, gradient, Smoothed(mean, uncertainty))
    each = list(zip(factors.each(), statistics.each([0, 0, 0]), strict=True))
    for (own, known), (single, expected) in zip(each, cases, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(_tensors(own, known), _tensors(single, expected), strict=True))
    if metric.takes_stacks:
        together = metric.scores(factors, statistics)
        for place, case in enumerate(cases):
            for scores, expected in zip(together, metric.scores(*case), strict=True):
                assert torch.equal(scores[place], expected)
