from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.adapters.builders import Q0, random_adapter

from pomona.adapters.export import doubts_for, problems_for
from pomona.adapters.export.base import Base
from pomona.adapters.export.vllm import problems as vllm_problems

QWEN = [f"model.layers.0.mlp.experts.{number}.{name}_proj" for number in range(4) for name in ("gate", "up", "down")]
MIXTRAL = [f"model.layers.0.block_sparse_moe.experts.{number}.{name}" for number in range(4) for name in ("w1", "w2", "w3")]


def base(folder: Path, model_type: str, name: str = "SomeForCausalLM", experts: int = 4) -> Base:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "num_experts": experts}))
    return Base(folder, name, None, 2, 4, 2, 8, tied=False)


@pytest.mark.parametrize(
    ("model_type", "modules", "told"),
    [
        ("qwen3_moe", QWEN, None),
        ("deepseek_v3", QWEN, None),
        ("mixtral", MIXTRAL, None),
        ("qwen3_moe", [Q0], None),
        ("phimoe", [Q0], None),
        ("qwen2_moe", QWEN, "but not for qwen2_moe"),
        ("phimoe", MIXTRAL, "but not for phimoe"),
        ("qwen3_moe", MIXTRAL, "but not for qwen3_moe"),
        ("qwen3_moe", QWEN[:6], "adapts 2 experts a layer, but"),
        ("qwen3_moe", ["model.layers.0.mlp.experts.down_proj[0/8]"], "adapts 8 experts"),
        ("gpt_oss", ["model.layers.0.mlp.experts.down_proj[0/4]", "model.layers.0.mlp.experts.down_proj_bias[0/1]"], None),
    ],
)
def test_experts_that_peft_cannot_place(model_type: str, modules: list[str], told: str | None, tmp_path: Path) -> None:
    adapter, known = random_adapter(0, modules=modules), base(tmp_path, model_type)
    problems = problems_for("peft", adapter, known)
    assert [told in problem for problem in problems if told] == ([True] if told else [])
    assert bool(problems) == bool(told)
    assert doubts_for("peft", adapter, known) == []


def test_single_experts_are_in_doubt_without_the_base() -> None:
    adapter = random_adapter(0, modules=QWEN)
    assert problems_for("peft", adapter) == []
    assert "depends on the base model: it does for afmoe, " in doubts_for("peft", adapter)[0]
    assert doubts_for("peft", random_adapter(0, modules=[Q0])) == doubts_for("vllm", adapter) == []


EXPERTS = "model.layers.0.mlp.experts"


@pytest.mark.parametrize(
    ("name", "modules", "told"),
    [
        ("GptOssForCausalLM", [f"{EXPERTS}.gate_up_proj[0/4]", f"{EXPERTS}.down_proj[3/4]", Q0], None),
        ("GptOssForCausalLM", [f"{EXPERTS}.down_proj[3/4]"], f"adapts one of the parameters of {EXPERTS}"),
        ("GptOssForCausalLM", [f"{EXPERTS}.down_proj_bias[0/1]"], "adapts the bare parameter"),
        ("Qwen3MoeForCausalLM", [f"{EXPERTS}.gate_up_proj[0/4]", f"{EXPERTS}.down_proj[3/4]"], "and vLLM takes that for GptOss"),
        ("GptOssForCausalLM", [f"{EXPERTS}.gate.weight[0/1]"], "adapts the bare parameter"),
    ],
)
def test_bare_parameters_for_vllm_and_llama_cpp(name: str, modules: list[str], told: str | None, tmp_path: Path) -> None:
    adapter = random_adapter(0, modules=modules)
    problems = vllm_problems(adapter, base(tmp_path, "some", name))
    assert [told in problem for problem in problems if told] == ([True] if told else [])
    assert bool(problems) == bool(told)
    assert "were not tried here" in doubts_for("vllm", adapter)[0]
    assert "as a bare parameter (target_parameters)" in problems_for("llama.cpp", adapter)[0]
