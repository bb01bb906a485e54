"""Merged export of bases that bitsandbytes quantised: its own dequantised weights plus the update, and PEFT's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import TARGETS, VOCABULARY, tiny_adapter, tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pomona.adapters import write_adapter
from pomona.adapters.export import export_merged
from pomona.backbone.load import load_backbone
from pomona.backbone.quantised import Quantization, dequantised
from pomona.errors import InputError

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WAYS = {
    "nf4, double": Quantization(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": Quantization(load_in_4bit=True),
    "int8": Quantization(load_in_8bit=True),
}


def save_model(folder: Path) -> Path:
    """As wide as a block of 64 codes: bitsandbytes' own kernel on a CPU takes the wrong scales where a row is shorter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_the_merged_weights_are_those_behind_the_codes_plus_the_update(way: str, dtype: str, tmp_path: Path) -> None:
    plain = save_model(tmp_path / "plain")
    made = load_backbone(str(plain), "cpu", dtype, quantization_config=WAYS[way])
    made.model.save_pretrained(tmp_path / "base", max_shard_size="100KB")
    made.tokenizer.save_pretrained(tmp_path / "base")
    adapter = tiny_adapter(made, seed=1, targets=TARGETS["llama"])
    done = export_merged(adapter, tmp_path / "out", tmp_path / "base")
    assert done.warnings[0].startswith("the base's bitsandbytes codes were written as float weights")
    rounding: Any = done.details["rounding"]
    assert rounding["error"] < (1e-5 if dtype == "float32" else 0.1)
    assert done.details["base"] == str(tmp_path / "base")
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "base", "out"}
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert str(found.dtype) == f"torch.{dtype}"
    assert not hasattr(found.config, "quantization_config")
    for path, module in made.linear_modules().items():
        weight_OI = dequantised(module).to(found.dtype).double()
        expected = (weight_OI + adapter.delta(path).double()).to(found.dtype) if path in adapter else weight_OI.to(found.dtype)
        atol, rtol = (1e-7, 1e-6) if dtype == "float32" else (1e-5, 2**-8)  # one step of bfloat16
        torch.testing.assert_close(found.get_submodule(path).weight, expected, atol=atol, rtol=rtol)
    assert torch.equal(found.lm_head.weight, made.model.lm_head.weight)  # pyright: ignore[reportAttributeAccessIssue]
    if dtype == "float32" and way != "int8":  # whose products quantise the activations too
        write_adapter(adapter, tmp_path / "adapter")
        tokens = torch.tensor([[1, 5, 9, 200, 7]])
        with torch.no_grad():
            beside = peft.PeftModel.from_pretrained(made.model, str(tmp_path / "adapter")).eval()(input_ids=tokens).logits
            torch.testing.assert_close(found(input_ids=tokens).logits, beside, atol=1e-4, rtol=1e-4)


def test_codes_without_their_scales_are_refused(tmp_path: Path) -> None:
    plain = save_model(tmp_path / "plain")
    made = load_backbone(str(plain), "cpu", quantization_config=WAYS["int8"])
    made.model.save_pretrained(tmp_path / "base")
    file, name = tmp_path / "base" / "model.safetensors", "model.layers.0.mlp.down_proj"
    tensors = load_file(file)
    del tensors[f"{name}.SCB"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{name}.SCB: this part of its codes is not there"):
        export_merged(tiny_adapter(made), tmp_path / "out", tmp_path / "base")
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "base"}
