"""Which modules are stacked together, and where their parameters lie."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_adapter
from torch import Tensor, nn

from pomona.adapters import Factors
from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.backbone.stacks import stacked
from pomona.backbone.trainable import Concat, Linear, TrainableMerge
from pomona.backbone.trainable.concat import ConcatModule
from pomona.importance import FactorPair, ModuleStatistics, Wanda


@pytest.mark.parametrize("how", [Concat(), Linear()], ids=["concat", "sum"])
def test_modules_of_one_shape_and_one_set_of_adapters_are_together(llama: Backbone, how: TrainableMerge) -> None:
    """q, k and v of two layers; v is smaller than q, and one q has the first adapter alone."""
    only = "model.layers.1.self_attn.q_proj"
    targets = ("q_proj", "k_proj", "v_proj")
    adapters = [tiny_adapter(llama, 1, 2, targets=targets), tiny_adapter(llama, 2, 3, targets=targets, leave_out=[only])]
    with attached(llama, adapters, how=how) as attachment:
        parameters = attachment.parameters()
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        found = [stack.paths for stack in attachment.stacks]
        layers = [f"model.layers.{layer}.self_attn." for layer in (0, 1)]
        assert sorted(found) == sorted(
            [[f"{layers[0]}q_proj"], [f"{layer}{name}" for layer in layers for name in ("k_proj", "v_proj")], [only]]
        )
        assert all(parameters[name] is one for name, one in attachment.parameters().items())
        assert all(bool((parameter == before[name]).all()) for name, parameter in parameters.items())
        for stack in attachment.stacks:
            for path, A in zip(stack.paths, stack.A, strict=True):
                assert A.data_ptr() == parameters[f"{path}.A"].data_ptr()
                assert A.data_ptr() % 64 == 0  # as torch lays out a tensor of its own
                assert A.is_contiguous()


class Halved(ConcatModule):
    """Another formula, and nothing said of stacks."""

    def merge(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        return super().merge(A, B)[0], B / 2

    def merged_gradient(self) -> FactorPair | None:
        found = super().merged_gradient()
        return found and FactorPair(found.A, found.B * 2)


def test_a_kind_that_changes_the_formula_alone_is_merged_module_by_module() -> None:
    modules = {name: Halved(name, nn.Linear(3, 2), [Factors(torch.ones(2, 3), torch.ones(2, 2), 0.5)], [1.0], 0.0) for name in "ab"}
    (stack,) = stacked(modules)
    assert stack.effective().A.unique().tolist() == [0.5]
    assert stack.effective().B.unique().tolist() == [0.5]
    for module in modules.values():
        module.A.grad, module.B.grad = torch.ones(2, 3), torch.ones(2, 2)
    assert stack.merged_gradient().A.unique().tolist() == [2.0]
    assert stack.merged_gradient().B.unique().tolist() == [2.0]


def test_a_metric_with_scores_of_its_own_takes_no_stacks_unless_it_says_so() -> None:
    class Own(Wanda):
        def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Tensor, Tensor]:
            return super().scores(factors, statistics)

    assert Wanda.takes_stacks
    assert not Own.takes_stacks
