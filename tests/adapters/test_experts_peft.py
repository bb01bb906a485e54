"""Bare parameters (`target_parameters`) against PEFT: what it trains is read as it means it, and it loads what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.adapters.builders import random_factors
from tests.adapters.moe import add, loaded_by_peft, logits, relative_error, tiny_moe, trained_by_peft, with_updates
from transformers import PreTrainedModel

from pomona.adapters import Adapter, check_adapters, read_adapter, write_adapter
from pomona.adapters.experts import expert_of
from pomona.errors import InputError
from pomona.merging import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # PEFT 0.21 looks for the patterns of parameters among the modules' names only.
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]

# Experts as [E, O, I], and as [E, I, O] where the model's code says so (`is_transposed`: GPT-OSS, Aria). Llama 4's are kept as
# [E, I, O] too, but its code does not say so: PEFT takes its last axis for the inputs.
TRANSPOSED = {"gpt_oss", "aria_text"}
BOTH = ["experts.gate_up_proj", "experts.down_proj"]
THREE = ("qwen3_moe", "gpt_oss", "llama4_text")


@pytest.fixture(scope="module", params=THREE)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_moe(request.param)


def by_hand(model: PreTrainedModel, *adapters: Adapter) -> Any:
    return with_updates(model, lambda parameters: add(adapters, parameters, transposed=model.config.model_type in TRANSPOSED))


def check(model: PreTrainedModel, tmp_path: Path, **config: Any) -> Adapter:
    """PEFT's own logits, those of the deltas that Pomona read, and PEFT's of what Pomona wrote, are one."""
    trained = trained_by_peft(model, tmp_path / "a", **config)
    adapter = read_adapter(tmp_path / "a")
    assert relative_error(by_hand(model, adapter), trained, logits(model)) < 1e-4
    write_adapter(adapter, tmp_path / "b")
    assert relative_error(loaded_by_peft(model, tmp_path / "b"), trained, logits(model)) < 1e-4
    again = read_adapter(tmp_path / "b")
    for path in adapter:
        torch.testing.assert_close(again.delta(path), adapter.delta(path), rtol=1e-5, atol=1e-6)
    return adapter


@pytest.mark.parametrize("kind", [*THREE, "deepseek_v3", "mixtral", "qwen2_moe", "granitemoe", "aria_text"])
def test_both_parameters_of_the_experts(kind: str, tmp_path: Path) -> None:
    adapter = check(tiny_moe(kind), tmp_path, r=3, lora_alpha=5, target_modules=[], target_parameters=BOTH)
    assert {expert.total for path in adapter if (expert := expert_of(path))} == {4}
    assert {path.rpartition(".")[2] for path in adapter} == {
        f"{name}_proj[{number}/4]" for name in ("gate_up", "down") for number in range(4)
    }


def test_attention_experts_ranks_and_rslora_together(model: PreTrainedModel, tmp_path: Path) -> None:
    config: dict[str, Any] = {"r": 2, "lora_alpha": 3, "use_rslora": True, "rank_pattern": {"down_proj": 3}}
    adapter = check(model, tmp_path, **config, target_modules=["q_proj", "o_proj"], target_parameters=BOTH)
    assert {adapter[path].rank for path in adapter if "down_proj[" in path} == {3}
    assert any("o_proj" in path for path in adapter)


@pytest.mark.parametrize(
    ("kind", "parameters", "modules"),
    [
        ("gpt_oss", ["router.weight", "gate_up_proj_bias", "down_proj_bias", *BOTH], []),
        ("qwen3_moe", ["gate.weight", "down_proj"], ["v_proj"]),
        ("deepseek_v3", [*BOTH, "mlp.gate_proj.weight", "shared_experts.down_proj.weight"], ["o_proj"]),
        ("qwen2_moe", [*BOTH, "mlp.gate.weight"], ["shared_expert.up_proj", "shared_expert_gate"]),
        ("llama4_text", [*BOTH, "router.weight"], ["shared_expert.up_proj"]),
        ("jetmoe", ["mlp.input_linear.weight", "mlp.output_linear.weight"], []),
        ("jetmoe", ["self_attention.experts.input_linear.weight"], ["kv_proj"]),
        ("qwen3_moe", ["model.layers.1.mlp.experts.gate_up_proj"], ["q_proj"]),
        ("qwen3_moe", ["embed_tokens.weight", "lm_head.weight", "q_proj.weight"], []),
    ],
)
def test_other_parameters(kind: str, parameters: list[str], modules: list[str], tmp_path: Path) -> None:
    """Matrices (routers, biases an expert, linear modules by their weight), shared experts and dense layers beside experts."""
    check(tiny_moe(kind), tmp_path, r=2, lora_alpha=3, target_modules=modules, target_parameters=parameters)


@pytest.mark.parametrize("changes", [{"num_local_experts": 3}, {"hidden_size": 24}])
def test_odd_numbers_of_experts_and_square_weights(changes: dict[str, int], tmp_path: Path) -> None:
    adapter = check(tiny_moe("gpt_oss", **changes), tmp_path, r=3, target_modules=[], target_parameters=BOTH)
    assert {expert.total for path in adapter if (expert := expert_of(path))} == {changes.get("num_local_experts", 4)}


def test_experts_that_a_merge_dropped_are_written_as_zeros(tmp_path: Path) -> None:
    model = tiny_moe("qwen3_moe")
    trained_by_peft(model, tmp_path / "a", r=2, target_modules=[], target_parameters=BOTH)
    adapter = read_adapter(tmp_path / "a")
    kept = Adapter({path: adapter[path] for path in adapter if not path.endswith(("[0/4]", "layers.1.mlp.experts.down_proj[3/4]"))})
    write_adapter(kept, tmp_path / "b")
    assert relative_error(loaded_by_peft(model, tmp_path / "b"), by_hand(model, kept), logits(model)) < 1e-4


@pytest.mark.parametrize("method", ["concat", "svd"])
def test_merged_experts_are_the_sum(model: PreTrainedModel, tmp_path: Path, method: str) -> None:
    """One adapts both parameters, the other one of them and the attention's output; `svd` at full rank is exact too."""
    trained_by_peft(model, tmp_path / "a", 1, r=1, target_modules=[], target_parameters=BOTH)
    trained_by_peft(model, tmp_path / "b", 2, r=2, lora_alpha=6, target_modules=["o_proj"], target_parameters=BOTH[1:])
    adapters = [read_adapter(tmp_path / name) for name in "ab"]
    merged = merge(adapters, method, rank=3) if method == "svd" else merge(adapters, method)
    write_adapter(merged, tmp_path / "merged")
    expected = by_hand(model, *adapters)
    assert relative_error(loaded_by_peft(model, tmp_path / "merged"), expected, logits(model)) < 1e-4


def test_ties_on_experts_is_ties_on_each(tmp_path: Path) -> None:
    """Each expert's pair alone, as a linear module's, gives the delta that PEFT then has."""
    model = tiny_moe("gpt_oss")
    for name, seed in (("a", 1), ("b", 2)):
        trained_by_peft(model, tmp_path / name, seed, r=2, target_modules=[], target_parameters=BOTH)
    adapters = [read_adapter(tmp_path / name) for name in "ab"]
    merged = merge(adapters, "ties", rank=8)
    path = next(path for path in merged if path.endswith("down_proj[2/4]"))
    alone = merge([Adapter({"m": adapter[path]}) for adapter in adapters], "ties", rank=8)
    torch.testing.assert_close(merged.delta(path), alone.delta("m"))
    write_adapter(merged, tmp_path / "merged")
    assert relative_error(loaded_by_peft(model, tmp_path / "merged"), by_hand(model, merged), logits(model)) < 1e-4


def changed(folder: Path, **config: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"target_parameters": ["experts.down_proj"]}, "has factors of 2 parameters of model.layers.0.mlp.experts"),
        ({"target_parameters": ["experts.gate_up_proj", "experts.w2"]}, "depends on the model's code"),
        ({"target_parameters": ["experts.down_proj", "experts.up_proj", "experts.gate_up_proj"]}, "has factors of 2 parameters of"),
        ({"target_parameters": ["other.weight"]}, "names none of them"),
        ({"target_parameters": "experts.down_proj"}, "is not a list of parameter names"),
        ({"r": 5}, "has 8 rows in lora_A, which are not those of whole experts"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ],
)
def test_configs_that_do_not_fit_the_factors(config: dict[str, object], told: str, tmp_path: Path) -> None:
    trained_by_peft(tiny_moe("qwen3_moe"), tmp_path / "a", r=2, target_modules=[], target_parameters=BOTH)
    with pytest.raises(InputError, match=told):
        read_adapter(changed(tmp_path / "a", **config))


def test_two_spellings_of_one_weight_are_not_merged(tmp_path: Path) -> None:
    fused, linear = "model.layers.0.mlp.experts.down_proj[1/4]", "model.layers.0.mlp.experts.1.down_proj"
    pair = random_factors(torch.Generator().manual_seed(0), 2)
    for first, second, told in (
        (fused, linear, "is the same weight for PEFT"),
        (fused, "model.layers.0.mlp.experts.down_proj[1/8]", "has another number of experts"),
        ("model.layers.0.mlp.gate.weight[0/1]", "model.layers.0.mlp.gate", "is the same weight for PEFT"),
        (
            "model.layers.0.mlp.experts.down_proj[1/4]",
            "model.layers.0.block_sparse_moe.experts.1.w2",
            "is the same weight for PEFT",
        ),
    ):
        with pytest.raises(InputError, match=told):
            merge([Adapter({first: pair}), Adapter({second: pair})], "concat")
        with pytest.raises(InputError, match="which are one weight for PEFT"):
            write_adapter(Adapter({first: pair, second: pair}), tmp_path / "out")


def test_parameters_without_factors_are_reported_by_check(tmp_path: Path) -> None:
    trained_by_peft(tiny_moe("qwen3_moe"), tmp_path / "a", r=2, target_modules=[], target_parameters=["gate.weight", *BOTH])
    assert [finding.level for finding in check_adapters([tmp_path / "a"], targets=["peft"])] == ["ok", "ok"]
    changed(tmp_path / "a", target_parameters=["gate.weight", *BOTH, "router.weight"])
    told = "target_parameters names router.weight, for which the file has no factors"
    assert told in {finding.message for finding in check_adapters([tmp_path / "a"])}
