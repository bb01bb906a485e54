"""Which modules are stacked together, and where their parameters lie."""

from __future__ import annotations

import pytest
from tests.tiny import tiny_adapter

from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, Linear, TrainableMerge


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
