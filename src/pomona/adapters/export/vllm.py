"""Export for vLLM: PEFT's folder, within vLLM's rules.

The rules are those of vLLM's `config/lora.py` (`MaxLoRARanks`), `lora/peft_helper.py` and `lora/lora_model.py`: the server is
started with a rank from a fixed set, every key must end in `lora_A.weight`, `lora_B.weight`, `lora_embedding_A` or
`lora_embedding_B`, and the last part of each module's path must be one that the model's class supports.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pomona.adapters.experts import expert_of
from pomona.adapters.export.base import Base
from pomona.adapters.export.result import Export, refuse
from pomona.adapters.factors import Adapter
from pomona.adapters.full_tensors import factors_only
from pomona.adapters.names import EMBEDDINGS, HEADS, last_part
from pomona.adapters.write import write_adapter

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that `--max-lora-rank` accepts."""

# Classes whose `embedding_modules` contain the token embedding and the output head; vLLM refuses both for all others.
_EMBEDDING_LORA = frozenset(
    {
        "GraniteForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
    }
)
# Classes without LoRA in vLLM's table of supported models.
_NO_LORA = frozenset(
    {
        "BloomForCausalLM",
        "FalconForCausalLM",
        "GPT2LMHeadModel",
        "GPTJForCausalLM",
        "GPTNeoXForCausalLM",
        "MPTForCausalLM",
        "OlmoeForCausalLM",
        "StableLmForCausalLM",
    }
)
# Classes whose `is_3d_moe_weight` is true: they read PEFT's stacked factors of experts.
_STACKED = frozenset({"GptOssForCausalLM", "Qwen3_5MoeForConditionalGeneration"})
STACKED_DOUBT = ("vLLM reads the stacked factors of experts by rules of its own, which were not tried here",)
"""The doubt that `export` and `check` report for bare parameters that vLLM should load."""
_STACKED_NAMES = frozenset({"gate_up_proj", "down_proj"})
# Last path components of GPT-2's Conv1D modules. The flag in a config does not decide: PEFT corrects it for each module.
_CONV1D = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
_MERGED = "Export it with --for merged and serve that model"


def problems(adapter: Adapter, base: Base | None = None) -> list[str]:
    """The reasons why vLLM would not load an adapter, one sentence each; rules that depend on the base need `base`."""
    found = factors_only(adapter, "vLLM")
    rank = max((adapter[module].rank for module in adapter), default=0)
    if rank > MAX_LORA_RANKS[-1]:
        found.append(f"has rank {rank}, and vLLM takes at most {MAX_LORA_RANKS[-1]}. Give --rank {MAX_LORA_RANKS[-1]}.")
    stacked = _stacked(adapter, None if base is None else base.name)
    if stacked is not None:
        found.append(stacked)
    if adapter.provenance.get("fan_in_fan_out") and any(last_part(module) in _CONV1D for module in adapter):
        found.append(f"is for GPT-2's Conv1D modules, and vLLM has no LoRA for them. {_MERGED}.")
    elif base is not None and base.name in _NO_LORA:
        found.append(f"is for a {base.name}, for which vLLM has no LoRA. {_MERGED}.")
    ends = _embedding_modules(adapter)
    if ends and base is not None and base.shapes is None and base.name not in _EMBEDDING_LORA | _NO_LORA:
        found.append(f"adapts {ends[0]}, and vLLM takes that for some models only, {base.name} not among them. {_MERGED}.")
    return found


def export_vllm(
    adapter: Adapter, output: Path, base: Base | None = None, *, dtype: torch.dtype | None = None, force: bool = False
) -> Export:
    """Write PEFT's folder for vLLM, and say which rank to start vLLM with.

    Args:
        adapter: the adapter.
        output: the new folder.
        base: the base model, if it is known.
        dtype: dtype of the file, fp32, fp16 or bf16; None: that of the factors. vLLM rounds to the model's dtype during loading.
        force: replace an existing adapter folder.

    Raises:
        InputError: vLLM would not load the adapter (the error has the reason and the fix), or as `write_adapter`.
    """
    refuse(adapter, "vllm", problems(adapter, base))
    write_adapter(adapter, output, force=force, dtype=dtype)
    rank = max(adapter[module].rank for module in adapter)
    allowed = next(value for value in MAX_LORA_RANKS if value >= rank)
    use = f"Start vLLM with --enable-lora --max-lora-rank {allowed} --lora-modules NAME={output}"
    doubts = tuple(
        f"it adapts {module}, which vLLM takes only for models that register it (Llama, Mistral, Granite, newer also Qwen)"
        for module in _embedding_modules(adapter)
    )
    doubts += STACKED_DOUBT if any(expert_of(path) for path in adapter) else ()
    return Export(output, len(adapter), rank, use, {"max_lora_rank": allowed}, doubts)


def _stacked(adapter: Adapter, name: str | None) -> str | None:
    """The reason why vLLM would not load bare parameters, if there is one."""
    experts = [expert for path in adapter if (expert := expert_of(path)) is not None]
    if not experts:
        return None
    other = next((expert for expert in experts if expert.name not in _STACKED_NAMES or expert.total == 1), None)
    if other is not None:
        takes = "gate_up_proj and down_proj of experts"
        return f"adapts the bare parameter {other.parameter}, and vLLM takes {takes} only. {_MERGED}."
    if name is not None and name not in _STACKED:
        known = " and ".join(sorted(_STACKED))
        return f"adapts experts that are kept in one tensor ({experts[0].path}), and vLLM takes that for {known} only. {_MERGED}."
    if name is None:
        return None
    for module in {expert.module for expert in experts}:
        if {expert.name for expert in experts if expert.module == module} != _STACKED_NAMES:
            return f"adapts one of the parameters of {module}, and vLLM takes both or none. {_MERGED}."
    return None


def _embedding_modules(adapter: Adapter) -> list[str]:
    return [module for module in adapter if module in adapter.embeddings or last_part(module) in HEADS | EMBEDDINGS]
