"""Nothing is folded into, or trained beside, a weight that is not a plain float matrix."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_backbone
from torch import nn

from pomona.backbone.attach import attached, new_adapter
from pomona.backbone.load import Backbone
from pomona.backbone.plain_weights import refuse_packed
from pomona.errors import InputError

PATH = "model.layers.0.self_attn.q_proj"


class Linear8bit(nn.Linear):
    """A quantiser's class, though its weight may be a float one."""


class Scaled(torch.Tensor):
    """A quantiser's tensor: its dtype and shape are those of what it stands for."""


def int8() -> nn.Module:
    module = nn.Linear(32, 32, bias=False)
    module.weight = nn.Parameter(torch.randint(-99, 99, (32, 32), dtype=torch.int8), requires_grad=False)
    return module


def packed() -> nn.Module:
    module = nn.Linear(32, 32, bias=False)
    module.weight = nn.Parameter(torch.zeros(512, 1, dtype=torch.uint8), requires_grad=False)
    return module


def reshaped() -> nn.Module:
    module = nn.Linear(32, 32, bias=False)
    module.weight = nn.Parameter(torch.zeros(512, 2))
    return module


def wrapped() -> nn.Module:
    module = nn.Linear(32, 32, bias=False)
    module.weight = nn.Parameter(torch.zeros(32, 32).as_subclass(Scaled))
    return module


def float8() -> nn.Module:
    module = nn.Linear(32, 32, bias=False)
    module.weight = nn.Parameter(torch.zeros(32, 32).to(torch.float8_e4m3fn), requires_grad=False)
    return module


@pytest.fixture
def backbone() -> Backbone:
    return tiny_backbone()


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (int8(), "torch.nn.modules.linear.Linear with a weight of 32 x 32 in torch.int8"),
        (packed(), "with a weight of 512 x 1 in torch.uint8"),
        (reshaped(), "with a weight of 512 x 2 in torch.float32"),
        (float8(), "with a weight of 32 x 32 in torch.float8_e4m3fn"),
        (wrapped(), "with a weight of 32 x 32 in torch.float32"),
        (Linear8bit(32, 32, bias=False), "test_plain_weights.Linear8bit with a weight of 32 x 32 in torch.float32"),
    ],
)
def test_a_module_that_is_not_plain_is_refused_before_anything_is_attached(
    backbone: Backbone, module: nn.Module, told: str
) -> None:
    adapter = tiny_adapter(backbone)
    kept = str(module.weight)
    backbone.model.set_submodule(PATH, module)
    with pytest.raises(InputError) as caught, attached(backbone, [adapter]) as attachment, attachment.folded():
        pytest.fail("attached")
    assert str(caught.value).startswith(f"{PATH}: is not a plain float matrix but ")
    assert told in str(caught.value)
    assert str(caught.value).endswith("Give the model before it was quantised.")
    assert str(backbone.model.get_submodule(PATH).weight) == kept
    with pytest.raises(InputError, match="is not a plain float matrix"):
        new_adapter(backbone, ["q_proj"], 2, 4.0, torch.Generator())


def test_modules_that_no_adapter_touches_may_be_what_they_are(backbone: Backbone) -> None:
    backbone.model.set_submodule("model.layers.0.mlp.up_proj", Linear8bit(32, 48, bias=False))
    with attached(backbone, [tiny_adapter(backbone)]) as attachment:
        assert PATH in attachment.modules


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_plain_models_pass(architecture: str, dtype: torch.dtype) -> None:
    modules = tiny_backbone(architecture).model.to(dtype)  # pyright: ignore[reportCallIssue, reportArgumentType]
    refuse_packed(Backbone(modules, tiny_backbone().tokenizer, "x").linear_modules())
