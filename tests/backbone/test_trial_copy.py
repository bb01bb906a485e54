"""What the loader decides about a model in bfloat16 is what it decides in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from benchmarks.tiny_architectures import ARCHITECTURES
from tests.tiny import VOCABULARY, save_tiny_model, tiny_model, tiny_tokenizer
from torch import nn
from transformers import PreTrainedModel

from pomona.backbone.load import is_causal, load_backbone
from pomona.backbone.speed import CompletionHead, NeededRows, Packing, switched_on
from pomona.backbone.trial_copy import layers_of_each_kind, trial_copy
from pomona.errors import InputError

TOKENS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
MAMBA: dict[str, Any] = {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 16}
DTYPES = (torch.float32, torch.bfloat16)


def made(kind: str, config: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(hf, kind)(config).requires_grad_(False).eval()


def falcon_h1() -> PreTrainedModel:
    config: Any = hf.FalconH1Config
    shape: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8, "mamba_chunk_size": 16}
    return made("FalconH1ForCausalLM", config(**SHAPE, **TOKENS, **MAMBA, **shape))


def mamba2() -> PreTrainedModel:
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8}
    config: Any = hf.Mamba2Config
    return made("Mamba2ForCausalLM", config(**shape, **TOKENS, n_groups=1, state_size=16, chunk_size=16))


def encoder() -> PreTrainedModel:
    return made("BertLMHeadModel", hf.BertConfig(**SHAPE))


def halved(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    nn.Module.to(model, dtype)
    return model


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_soft_cap_is_no_plain_head(dtype: torch.dtype) -> None:
    """The logits of this text are far below the cap of 30, so that it changes them by less than bfloat16's rounding."""
    model = halved(made("Gemma2ForCausalLM", hf.Gemma2Config(**ARCHITECTURES["gemma2"].fields)), dtype)
    assert model(input_ids=torch.tensor([[3, 4, 5]])).logits.abs().max() < 1
    assert CompletionHead not in switched_on(model)
    model.config.final_logit_softcapping = None
    assert CompletionHead in switched_on(model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_encoder_is_not_causal_and_a_decoder_is(dtype: torch.dtype) -> None:
    assert not is_causal(trial_copy(halved(encoder(), dtype)))
    assert is_causal(trial_copy(halved(tiny_model(), dtype)))


@pytest.mark.parametrize("model", [falcon_h1, mamba2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_model_with_a_state_is_causal_and_not_packed(model: Any, dtype: torch.dtype) -> None:
    found = halved(model(), dtype)
    assert is_causal(trial_copy(found))
    assert Packing not in switched_on(found)


@pytest.mark.parametrize(
    "name", [name for name in ARCHITECTURES if ARCHITECTURES[name].kind.endswith(("ForCausalLM", "HeadModel"))]
)
def test_half_precision_decides_as_float32(name: str) -> None:
    model = ARCHITECTURES[name].build()
    kinds = (CompletionHead, NeededRows, Packing)
    expected = [kind in switched_on(model) for kind in kinds]
    assert is_causal(model)
    halved(model, torch.bfloat16)
    tried = trial_copy(model)
    assert tried is not model
    assert {one.dtype for one in tried.parameters()} == {torch.float32}
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert is_causal(tried)
    assert [kind in switched_on(model, tried=tried) for kind in kinds] == expected


def test_float32_is_tried_as_it_is() -> None:
    model = tiny_model()
    assert trial_copy(model) is model


def test_a_copy_has_layers_of_each_kind_and_the_numbers_of_the_model() -> None:
    shape = {**SHAPE, "num_hidden_layers": 8}
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"] * 2
    config = hf.Gemma3TextConfig(**shape, **TOKENS, num_key_value_heads=2, head_dim=8, sliding_window=4, layer_types=kinds)
    model = made("Gemma3ForCausalLM", config)
    assert layers_of_each_kind(list(model.model.layers)) == 4  # pyright: ignore[reportArgumentType]
    tokens = torch.arange(9)[None]
    seen: list[torch.Tensor] = []
    hook = model.model.layers[3].register_forward_hook(lambda module, inputs, output: seen.append(output))  # pyright: ignore
    halved(model, torch.bfloat16)
    tried = trial_copy(model)
    assert len(tried.model.layers) == 4  # pyright: ignore[reportArgumentType]
    seen.clear()
    nn.Module.float(model)
    model(input_ids=tokens)
    (expected,) = seen
    hook.remove()
    found: list[torch.Tensor] = []
    tried.model.layers[3].register_forward_hook(lambda module, inputs, output: found.append(output))  # pyright: ignore
    tried(input_ids=tokens)
    torch.testing.assert_close(found[-1], expected, atol=1e-6, rtol=1e-6)


def test_an_encoder_in_half_precision_is_refused_by_the_loader(tmp_path: Path) -> None:
    model = encoder()
    model.config.architectures = ["BertLMHeadModel"]
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="its outputs depend on later tokens, so it is not a causal language model"):
        load_backbone(str(tmp_path), "cpu", "bfloat16")


def test_a_model_that_half_precision_breaks_is_refused_by_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, forward = str(save_tiny_model(tmp_path)), hf.LlamaForCausalLM.forward

    def in_float32_alone(self: Any, *inputs: Any, **named: Any) -> Any:
        if self.dtype != torch.float32:
            raise RuntimeError("expected scalar type Float but found BFloat16")
        return forward(self, *inputs, **named)

    monkeypatch.setattr(hf.LlamaForCausalLM, "forward", in_float32_alone)
    with pytest.raises(
        InputError, match=r"^dtype: the model does not run in bfloat16 on cpu: expected scalar .*Set dtype to float32"
    ):
        load_backbone(folder, "cpu", "bfloat16")
    assert load_backbone(folder, "cpu", "float32").model.dtype == torch.float32
