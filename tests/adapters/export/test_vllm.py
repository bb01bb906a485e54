from __future__ import annotations

import copy
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.adapters.builders import Q0, random_adapter, random_factors
from tests.adapters.export.tiny_models import TOKENS, build, transformers_logits, update

from pomona.adapters import Adapter, read_adapter
from pomona.adapters.export import EXPORTS, Base, export_adapter, export_peft, export_vllm, problems_for
from pomona.errors import InputError


def base(name: str) -> Base:
    return Base(Path("model"), name, None, 2, 4, 2, 8, tied=False)


def of_rank(rank: int) -> Adapter:
    return random_adapter(0, (Q0,), rank)


@pytest.mark.parametrize(
    ("rank", "allowed"), [(1, 1), (2, 8), (8, 8), (9, 16), (64, 64), (65, 128), (257, 320), (321, 512), (512, 512)]
)
def test_the_rank_that_vllm_must_be_started_with(rank: int, allowed: int, tmp_path: Path) -> None:
    done = export_vllm(of_rank(rank), tmp_path / "out")
    assert done.details == {"max_lora_rank": allowed}
    assert f"--max-lora-rank {allowed} --lora-modules NAME={tmp_path / 'out'}" in done.use
    assert done.warnings == ()
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (rank, rank, "none")
    assert not {"rank_pattern", "alpha_pattern", "modules_to_save", "use_dora"} & config.keys()
    keys = {f"base_model.model.{Q0}.lora_{side}.weight" for side in "AB"}
    assert set(load_file(tmp_path / "out" / "adapter_model.safetensors")) == keys


def test_a_rank_above_all_of_them(tmp_path: Path) -> None:
    assert problems_for("vllm", of_rank(513)) == ["has rank 513, and vLLM takes at most 512. Give --rank 512."]
    with pytest.raises(InputError, match=r'target="vllm": has rank 513.*Give `rank` 512'):
        export_vllm(of_rank(513), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_for_which_vllm_has_no_lora(tmp_path: Path) -> None:
    conv1d = update(build("gpt2"), ("c_attn",))
    assert [problem.partition(",")[0] for problem in problems_for("vllm", conv1d)] == ["is for GPT-2's Conv1D modules"]
    assert "Export it with --for merged" in problems_for("vllm", of_rank(2), base("GPTNeoXForCausalLM"))[0]
    with pytest.raises(InputError, match="is for a BloomForCausalLM, for which vLLM has no LoRA"):
        export_vllm(of_rank(2), tmp_path / "out", base("BloomForCausalLM"))


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_head_and_embedding_depend_on_the_model(module: str, tmp_path: Path) -> None:
    factors = {module: random_factors(torch.Generator(), 2)}
    adapter = Adapter(factors, embeddings=frozenset({module} - {"lm_head"}))
    assert problems_for("vllm", adapter) == []
    assert problems_for("vllm", adapter, base("LlamaForCausalLM")) == []
    assert problems_for("vllm", adapter, base("Gemma3ForCausalLM"))[0].startswith(f"adapts {module}, and vLLM takes that for some")
    assert module in export_vllm(adapter, tmp_path / "out").warnings[0]


@pytest.mark.parametrize("target", EXPORTS)
def test_an_adapter_without_modules(target: str, tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match="the adapter has no modules"):
        export_adapter(Adapter({}), target, tmp_path / "out", base=tmp_path / "base")
    assert not (tmp_path / "out").exists()


def test_peft_has_no_problems() -> None:
    assert problems_for("peft", of_rank(600)) == []
    with pytest.raises(KeyError):
        problems_for("merged", of_rank(2))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_peft_loads_the_folders_and_says_the_same(dtype: torch.dtype | None, tmp_path: Path) -> None:
    model = build("llama")
    adapter = update(model, ("q_proj", "v_proj", "embed_tokens", "lm_head"))
    done = export_peft(adapter, tmp_path / "peft", dtype=dtype)
    assert (done.rank, done.modules) == (max(adapter[module].rank for module in adapter), 6)
    export_vllm(adapter, tmp_path / "vllm", dtype=dtype)
    expected = transformers_logits(model, TOKENS, adapter)
    bound = 1e-4 if dtype is None else 0.05
    for folder in ("peft", "vllm"):
        attached = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / folder)).eval()
        with torch.no_grad():
            found = attached(torch.tensor([TOKENS])).logits[0]
        assert float((found - expected).norm() / (expected - transformers_logits(model, TOKENS)).norm()) < bound
        assert {tensor.dtype for tensor in load_file(tmp_path / folder / "adapter_model.safetensors").values()} == {
            dtype or torch.float32
        }
        assert read_adapter(tmp_path / folder).embeddings == adapter.embeddings
