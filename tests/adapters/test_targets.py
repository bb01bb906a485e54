"""Held against PEFT's own `check_target_module_exists`."""

from __future__ import annotations

import peft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists

from pomona.adapters.targets import Targets

MODULES = (
    "lm_head",
    "model.embed_tokens",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.mlp.my_q_proj",
    "model.layers.11.mlp.down_proj",
    "model.layers.1.mlp.experts.0.w1",
    "transformer.h.1.attn.c_attn",
    "layers.1.q_proj",
    "q_proj",
)
NAMES = ("q_proj", "self_attn.q_proj", "model.layers.1.self_attn.q_proj", "w1", "experts.0.w1", "proj", "embed_tokens", "layers")
EXPRESSIONS = (r".*q_proj", r".*\.q_proj", r"model\.layers\.1\..*", "q_proj", r".*\.(w1|c_attn)", "")
LISTS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)


@given(
    modules=LISTS,
    exclude=st.none() | LISTS | st.sampled_from(EXPRESSIONS),
    layers=st.none() | st.lists(st.sampled_from([0, 1, 11]), min_size=1, unique=True),
    patterns=st.sampled_from([(), ("layers",), ("h",), ("experts", "layers"), ("lay.*",)]),
    module=st.sampled_from(MODULES),
)
@settings(max_examples=300, deadline=None)
def test_lists_as_peft_decides(
    modules: list[str], exclude: list[str] | str | None, layers: list[int] | None, patterns: tuple[str, ...], module: str
) -> None:
    config = peft.LoraConfig(
        target_modules=modules,
        exclude_modules=exclude,
        layers_to_transform=layers,
        layers_pattern=list(patterns) if layers and patterns else None,
    )
    targets = Targets(frozenset(modules), exclude or (), layers, patterns if layers else ())
    assert (targets.leaves_out(module) is None) == bool(check_target_module_exists(config, module))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_as_peft_decides(expression: str, module: str) -> None:
    expected = bool(check_target_module_exists(peft.LoraConfig(target_modules=expression), module))
    assert (Targets(expression).leaves_out(module) is None) == expected


def test_the_field_that_decides_is_named() -> None:
    q1 = "model.layers.1.self_attn.q_proj"
    assert Targets({"v_proj"}).leaves_out(q1) == "target_modules"
    assert Targets({"q_proj"}, exclude={"layers.1.self_attn.q_proj"}).leaves_out(q1) == "exclude_modules"
    assert Targets({"q_proj"}, layers={0}).leaves_out(q1) == "layers_to_transform"
    assert Targets({"q_proj"}, layers={1}).leaves_out(q1) is None


def test_all_linear_leaves_out_the_head_and_embeddings() -> None:
    targets = Targets("All-Linear")
    assert targets.leaves_out("model.layers.0.mlp.up_proj") is None
    assert targets.leaves_out("lm_head") == "target_modules"
    assert targets.leaves_out("model.embed_tokens", embedding=True) == "target_modules"


def test_peft_s_own_table_is_not_guessed() -> None:
    assert Targets(None).leaves_out("model.layers.0.mlp.up_proj") is None


def test_entries_without_a_module() -> None:
    targets = Targets({"q_proj", "k_proj", "0.self_attn.q_proj", "proj"})
    assert targets.without(["model.layers.0.self_attn.q_proj"]) == ["k_proj", "proj"]
    assert Targets(".*q_proj").without([]) == []
