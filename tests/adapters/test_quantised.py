"""What says that a base model is quantised: its config in any of its spellings, or codes in its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pomona.adapters.export.checkpoint import read_checkpoint
from pomona.adapters.quantised import refuse_codes, refuse_quantised
from pomona.errors import InputError


@pytest.mark.parametrize(
    ("config", "field", "method"),
    [
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config", "bitsandbytes, 8-bit"),
        ({"quantization_config": {"load_in_4bit": True, "load_in_8bit": False}}, "quantization_config", "bitsandbytes, 4-bit"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config", "gptq, 4-bit"),
        ({"quantization_config": {"quant_method": "awq", "w_bit": 4}}, "quantization_config", "awq, 4-bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config", "fp8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quantization_config", "mxfp4"),
        ({"quantization_config": {"quant_algo": "NVFP4"}}, "quantization_config", "NVFP4"),
        ({"text_config": {"quantization_config": {"quant_method": "torchao"}}}, "text_config.quantization_config", "torchao"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compression_config", "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization", "4-bit"),
        ({"quantization_config": {"group": 1}}, "quantization_config", "the method is not named"),
    ],
)  # fmt: skip
def test_a_config_that_declares_it(config: dict[str, object], field: str, method: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_quantised({"model_type": "llama", **config}, "config.json")
    assert str(caught.value) == (
        f"config.json: {field}: the model is quantised ({method}), and only float weights can be trained beside or added to. "
        "Give the model that it was quantised from."
    )


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}, {"text_config": {"bits": 4}}])
def test_a_config_that_does_not(config: dict[str, object]) -> None:
    refuse_quantised(config, "config.json")


@pytest.mark.parametrize(
    ("name", "tensor", "dtype"),
    [
        ("model.layers.0.mlp.up_proj.weight", torch.ones(4, 3, dtype=torch.int8), "I8"),
        ("model.layers.0.mlp.up_proj.weight", torch.ones(6, 1, dtype=torch.uint8), "U8"),
        ("model.layers.0.mlp.up_proj.qweight", torch.ones(4, 3, dtype=torch.int32), "I32"),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", torch.ones(2, 4, 3, dtype=torch.uint8), "U8"),
        ("model.layers.0.mlp.up_proj.weight", torch.ones(4, 3).to(torch.float8_e4m3fn), "F8_E4M3"),
    ],
)
def test_codes_in_the_files(tmp_path: Path, name: str, tensor: torch.Tensor, dtype: str) -> None:
    save_file({name: tensor, "model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"{name}: is stored as {dtype}, so the model is quantised"):
        refuse_codes(read_checkpoint(tmp_path))


def test_masks_and_positions_of_old_files_are_no_codes(tmp_path: Path) -> None:
    tensors = {
        "h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "h.1.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "embeddings.position_ids": torch.arange(4)[None],
        "h.0.attn.c_attn.weight": torch.ones(3, 9, dtype=torch.bfloat16),
        "packed_count": torch.ones(3, dtype=torch.int32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({}))
    refuse_codes(read_checkpoint(tmp_path))
