from __future__ import annotations

import pytest

from pomona.adapters import layer_number, model_order


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("model.layers.3.self_attn.q_proj", 3),
        ("transformer.h.12.attn.c_attn", 12),
        ("model.layers.3.mlp.experts.5.up_proj", 3),
        ("7.q_proj", 7),
        ("model.embed_tokens", None),
        ("lm_head", None),
        ("model.layer3.q_proj", None),
        ("model.layers.³.q_proj", None),
    ],
)
def test_the_layer_is_the_first_number_of_the_path(module: str, layer: int | None) -> None:
    assert layer_number(module) == layer


def test_the_order_is_the_model_s() -> None:
    ordered = [
        "model.embed_tokens",
        "model.layers.2.self_attn.q_proj",
        "model.layers.2.self_attn.v_proj",
        "model.layers.2.mlp.experts.9.up_proj",
        "model.layers.2.mlp.experts.10.up_proj",
        "model.layers.10.self_attn.q_proj",
        "lm_head",
    ]
    shuffled = [*ordered[3:], *ordered[2::-1]]
    assert sorted(shuffled, key=model_order) == ordered
