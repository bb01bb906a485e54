from __future__ import annotations

import pytest
import torch

from pomona.adapters.factors import Factors
from pomona.importance import ImportanceMetric, ModuleStatistics, importance_metrics


@pytest.fixture(params=list(importance_metrics))
def metric(request: pytest.FixtureRequest) -> ImportanceMetric:
    return importance_metrics.create(request.param)


def _case(dtype: torch.dtype = torch.float32) -> tuple[Factors, ModuleStatistics]:
    generator = torch.Generator().manual_seed(0)
    A_RI = torch.randn(3, 7, generator=generator).to(dtype).requires_grad_()
    B_OR = torch.randn(5, 3, generator=generator).to(dtype).requires_grad_()
    return Factors(A_RI, B_OR), ModuleStatistics(torch.rand(7, generator=generator), torch.rand(3, generator=generator))


def test_shape_sign_and_no_gradient(metric: ImportanceMetric) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        factors, statistics = _case(dtype)
        for scores, factor in zip(metric.scores(factors, statistics), (factors.A, factors.B), strict=True):
            assert scores.shape == factor.shape
            assert scores.dtype.is_floating_point
            assert not scores.requires_grad
            assert bool((scores >= 0).all())
            assert float(scores.max()) > 0


def test_inputs_stay_as_they_are(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    tensors = (factors.A, factors.B, statistics.input_norm_I, statistics.hidden_norm_R)
    before = [tensor.detach().clone() for tensor in tensors]
    for scores in metric.scores(factors, statistics):
        scores.add_(1.0)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


def test_a_common_constant_of_the_norms_changes_no_order(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    scaled = ModuleStatistics(statistics.input_norm_I * 64.0, statistics.hidden_norm_R * 64.0)
    for one, other in zip(metric.scores(factors, statistics), metric.scores(factors, scaled), strict=True):
        assert torch.equal(one.flatten().argsort(stable=True), other.flatten().argsort(stable=True))


def test_activations_matter_exactly_where_the_metric_says_so(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    other = ModuleStatistics(statistics.input_norm_I.flip(0), statistics.hidden_norm_R.flip(0))
    same = all(torch.equal(a, b) for a, b in zip(metric.scores(factors, statistics), metric.scores(factors, other), strict=True))
    assert same is not metric.needs_activations


def test_the_same_every_time(metric: ImportanceMetric) -> None:
    factors, statistics = _case()
    assert all(
        torch.equal(a, b) for a, b in zip(metric.scores(factors, statistics), metric.scores(factors, statistics), strict=True)
    )
