from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples

from pomona.backbone.attach import attached
from pomona.backbone.gradient_checkpointing import gradient_checkpointing
from pomona.backbone.load import Backbone
from pomona.backbone.published_norms import PublishedNorms
from pomona.errors import InputError

READ_THE_HIDDEN_STATE = {"gpt2": ("attn.c_attn",)}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def targets_of(backbone: Backbone) -> tuple[str, ...]:
    return READ_THE_HIDDEN_STATE.get(backbone.name.removeprefix("tiny-"), QKV)


def plain_norms(backbone: Backbone, examples: list[Any]) -> list[list[float]]:
    """A vector a layer, token by token and entry by entry in Python's floats: what flows into each layer, brought to unit size."""
    model: Any = backbone.model.base_model
    layers = model.h if backbone.name == "tiny-gpt2" else model.layers
    seen: list[list[list[float]]] = [[] for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(lambda module, args, kept=kept: kept.extend(args[0][0].double().tolist()))
        for layer, kept in zip(layers, seen, strict=True)
    ]
    with torch.no_grad():
        for example in examples:
            model(input_ids=torch.tensor([example.tokens]), use_cache=False)
    for hook in hooks:
        hook.remove()
    found = []
    for tokens in seen:
        sums = [0.0] * len(tokens[0])
        for x in tokens:
            centre, eps = (sum(x) / len(x), 1e-5) if backbone.name == "tiny-gpt2" else (0.0, 1e-6)
            size = math.sqrt(sum((value - centre) ** 2 for value in x) / len(x) + eps)
            sums = [total + ((value - centre) / size) ** 2 for total, value in zip(sums, x, strict=True)]
        found.append([math.sqrt(total) for total in sums])
    return found


def test_one_vector_a_layer_from_its_input_without_the_norms_weight(backbone: Backbone) -> None:
    examples = tiny_examples(5, seed=3)
    generator = torch.Generator().manual_seed(0)
    kept = {}
    for name, parameter in backbone.model.named_parameters():  # the weights that are left out: not 1, so that it shows
        if parameter.ndim == 1 and ("norm" in name or "ln_" in name):
            kept[name] = parameter.data
            parameter.data = parameter.data + torch.rand(parameter.shape, generator=generator)
    with attached(backbone, [tiny_adapter(backbone, targets=targets_of(backbone))], dropout=0.9) as attachment:
        norms = PublishedNorms(attachment, examples)
        attachment.train(True)
        norms.prepare()
        assert all(layer.training for layer in attachment.layers.values())
        attachment.train(False)
        expected = plain_norms(backbone, examples)
        for path in attachment.layers:
            number = int(next(part for part in path.split(".") if part.isdigit()))
            found = norms[path]
            torch.testing.assert_close(found.input_norm_I.double(), torch.tensor(expected[number]).double(), atol=0, rtol=1e-5)
            assert found.hidden_norm_R.tolist() == [0.0] * 3
            assert found.gradient is None
    for name, value in kept.items():
        backbone.model.get_parameter(name).data = value


def test_every_call_sees_the_present_factors(llama: Backbone) -> None:
    examples = tiny_examples(3)
    with attached(llama, [tiny_adapter(llama, targets=QKV)]) as attachment:
        norms = PublishedNorms(attachment, examples)
        norms.prepare()
        before = norms["model.layers.1.self_attn.q_proj"].input_norm_I
        with torch.no_grad():
            for parameter in attachment.parameters().values():
                parameter.mul_(3.0)
        with gradient_checkpointing(llama):
            norms.prepare()
        after = norms["model.layers.1.self_attn.q_proj"].input_norm_I
        assert not torch.equal(before, after)
        torch.testing.assert_close(after.double(), torch.tensor(plain_norms(llama, examples)[1]).double(), atol=0, rtol=1e-5)


def test_bf16_states_are_summed_in_fp32() -> None:
    backbone = tiny_backbone("llama")
    torch.nn.Module.to(backbone.model, torch.bfloat16)
    examples = tiny_examples(3)
    with attached(backbone, [tiny_adapter(backbone, targets=QKV)]) as attachment:
        norms = PublishedNorms(attachment, examples)
        norms.prepare()
        expected = torch.tensor(plain_norms(backbone, examples)[0]).double()
        found = norms["model.layers.0.self_attn.v_proj"].input_norm_I
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=0, rtol=1e-5)


@pytest.mark.parametrize("target", ["mlp.down_proj", "embed_out"])
def test_modules_that_do_not_read_the_hidden_state_are_refused(target: str) -> None:
    backbone = tiny_backbone("llama")
    if target == "embed_out":  # a linear module as wide as the hidden state, outside the layers
        backbone.model.add_module(target, torch.nn.Linear(32, 32))
    with (
        attached(backbone, [tiny_adapter(backbone, targets=(target,))]) as attachment,
        pytest.raises(InputError, match=rf"{target.replace('.', '[.]')}: .*know only modules .*q_proj, k_proj and v_proj"),
    ):
        PublishedNorms(attachment, tiny_examples(2))


def test_a_layer_without_a_norm_is_refused() -> None:
    backbone = tiny_backbone("llama")
    for layer in backbone.model.base_model.layers:  # pyright: ignore[reportGeneralTypeIssues]
        layer.input_layernorm = layer.post_attention_layernorm = torch.nn.Identity()
    with (
        attached(backbone, [tiny_adapter(backbone, targets=QKV)]) as attachment,
        pytest.raises(InputError, match="need a norm in every layer"),
    ):
        PublishedNorms(attachment, tiny_examples(2))
