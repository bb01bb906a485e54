"""Statistics that do not fit the factors are refused, by every metric that reads them."""

from __future__ import annotations

import pytest
import torch

from pomona.adapters.factors import Factors
from pomona.importance import FactorPair, ImportanceMetric, ModuleStatistics, Smoothed, importance_metrics

FACTORS = Factors(torch.ones(2, 3), torch.ones(4, 2))
FITTING = FactorPair(torch.ones(2, 3), torch.ones(4, 2))
METRICS = [importance_metrics.create(name) for name in importance_metrics]


def _refused(metric: ImportanceMetric, statistics: ModuleStatistics) -> str:
    with pytest.raises(ValueError, match="fit") as caught:
        metric.scores(FACTORS, statistics)
    return str(caught.value)


@pytest.mark.parametrize("metric", [one for one in METRICS if one.needs_activations], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("inputs", "hidden"), [(4, 2), (3, 1), (1, 2), (3, 4)])
def test_norms(metric: ImportanceMetric, inputs: int, hidden: int) -> None:
    message = _refused(metric, ModuleStatistics(torch.ones(inputs), torch.ones(hidden), FITTING))
    assert message == f"norms of shape ({inputs},) and ({hidden},) do not fit factors with 3 input features and rank 2"


@pytest.mark.parametrize("metric", [one for one in METRICS if one.needs_gradient], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("of_A", "of_B"), [((2, 1), (4, 2)), ((1, 3), (4, 2)), ((2, 3), (4, 1)), ((2, 3), (1, 2))])
def test_gradients(metric: ImportanceMetric, of_A: tuple[int, int], of_B: tuple[int, int]) -> None:
    gradient = FactorPair(torch.ones(of_A), torch.ones(of_B))
    message = _refused(metric, ModuleStatistics(torch.ones(3), torch.ones(2), gradient))
    assert message == f"the gradient of shapes {of_A} and {of_B} does not fit factors of shapes (2, 3) and (4, 2)"


@pytest.mark.parametrize("metric", [one for one in METRICS if one.smoothing], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("which", ["mean", "uncertainty"])
def test_averages(metric: ImportanceMetric, which: str) -> None:
    averages = Smoothed(FITTING, FITTING)._replace(**{which: FactorPair(torch.ones(2, 3), torch.ones(4, 1))})
    message = _refused(metric, ModuleStatistics(torch.ones(3), torch.ones(2), smoothed=averages))
    assert message == f"the smoothed {which} of shapes (2, 3) and (4, 1) does not fit factors of shapes (2, 3) and (4, 2)"
