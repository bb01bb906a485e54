"""Whole fine-tuned models as adapters of their base: the tuned model's own logits are the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.convert.models import Q0, assert_same_effect, logits, new_model, peft_logits, saved
from torch import Tensor
from transformers import PreTrainedModel

from pomona.adapters import read_adapter
from pomona.adapters.convert import convert
from pomona.adapters.convert.difference import task_of
from pomona.backbone.base_modules import modules_of_folder
from pomona.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model .*tie_word_embeddings=True:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning"),
]


def tuned(kind: str, *ends: str) -> PreTrainedModel:
    """The model with noise on those tensors whose names end so."""
    model = new_model(kind)
    generator = torch.Generator().manual_seed(9)
    for name, parameter in model.named_parameters():
        noise = 0.1 * torch.randn(parameter.shape, generator=generator)
        if name.endswith(ends):
            parameter.data += noise
    return model


MATRICES = {
    "llama": ("_proj.weight", "embed_tokens.weight", "lm_head.weight"),
    "tied": ("_proj.weight", "embed_tokens.weight"),
    "gpt2": ("c_attn.weight", "c_proj.weight", "c_fc.weight"),
}


def without_prefix(folder: Path) -> None:
    """As GPT-2's files on the hub are."""
    file = folder / "model.safetensors"
    save_file({name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kind", MATRICES)
def test_at_full_rank_peft_gives_the_tuned_logits(kind: str, told: bool, tmp_path: Path) -> None:
    base = saved(new_model(kind), tmp_path / "base")
    model = tuned(kind, *MATRICES[kind])
    # In several files where the base has one.
    folder = saved(model, tmp_path / "tuned", max_shard_size="6KB" if told else "1GB")
    assert (folder / "model.safetensors.index.json").exists() == told
    done = convert(folder, tmp_path / "out", rank=100, base=base, modules=modules_of_folder(base) if told else None)
    assert_same_effect(peft_logits(tmp_path / "out", kind), logits(model), kind)
    assert done.approximation is not None
    assert done.approximation.error < 1e-5
    assert (done.kind, done.dropped) == ("whole model", ())


def test_files_without_the_first_part_of_the_names(tmp_path: Path) -> None:
    base, model = saved(new_model("gpt2"), tmp_path / "base"), tuned("gpt2", "c_attn.weight")
    without_prefix(base)
    folder = saved(model, tmp_path / "tuned")
    convert(folder, tmp_path / "one", rank=16, base=base)
    assert_same_effect(peft_logits(tmp_path / "one", "gpt2"), logits(model), "gpt2")
    without_prefix(folder)
    with pytest.raises(InputError, match="no path in the whole model"):
        convert(folder, tmp_path / "two", rank=16, base=base)
    convert(folder, tmp_path / "two", rank=16, base=base, modules=modules_of_folder(base))
    assert read_adapter(tmp_path / "two").fingerprint() == read_adapter(tmp_path / "one").fingerprint()


def test_a_name_that_could_be_two_is_none(tmp_path: Path) -> None:
    """Two towers in the base, and files that do not say which of both they are; and the other way round."""
    base, folder = saved(new_model(), tmp_path / "base"), saved(tuned("llama", "q_proj.weight"), tmp_path / "tuned")
    tensors = {"text.layers.0.up.weight": torch.ones(4, 4), "image.layers.0.up.weight": torch.zeros(4, 4)}
    save_file(tensors, base / "model.safetensors")
    save_file({"layers.0.up.weight": torch.ones(4, 4)}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"that the base model does not have: layers.0.up.weight"):
        convert(folder, tmp_path / "out", rank=1, base=base)
    with pytest.raises(InputError, match=r"that the base model does not have: image.layers.0.up.weight, text.layers.0.up.weight"):
        convert(base, tmp_path / "out", rank=1, base=folder)


def test_only_changed_modules_are_converted_and_a_merged_lora_is_recovered(tmp_path: Path) -> None:
    base, model = saved(new_model(), tmp_path / "base"), new_model()
    change = torch.randn(16, 2) @ torch.randn(2, 16)
    model.get_parameter(f"{Q0}.weight").data += change
    done = convert(saved(model, tmp_path / "tuned"), tmp_path / "out", rank=8, base=base)
    written = read_adapter(tmp_path / "out")
    assert written.modules == (Q0,)
    assert (done.rank, written[Q0].rank) == (2, 2)  # no factors for rounding
    torch.testing.assert_close(written.delta(Q0), change, rtol=1e-4, atol=1e-5)
    assert written.base_model == str(base)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_differences_of_half_precision_weights_are_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    before, after = new_model().to(dtype), tuned("llama", "q_proj.weight").to(dtype)  # pyright: ignore[reportArgumentType]
    base, folder = saved(before, tmp_path / "base"), saved(after, tmp_path / "tuned")
    convert(folder, tmp_path / "out", rank=16, base=base)
    expected = after.get_parameter(f"{Q0}.weight").double() - before.get_parameter(f"{Q0}.weight").double()
    torch.testing.assert_close(read_adapter(tmp_path / "out").delta(Q0).double(), expected, rtol=1e-4, atol=1e-6)


def test_what_is_no_linear_map_is_lost_only_on_demand(tmp_path: Path) -> None:
    base, model = saved(new_model(), tmp_path / "base"), tuned("llama", "q_proj.weight", "input_layernorm.weight")
    model.get_parameter("model.norm.weight").data.mul_(1.5)
    folder = saved(model, tmp_path / "tuned")
    with pytest.raises(InputError) as caught:
        convert(folder, tmp_path / "out", rank=4, base=base)
    assert "3 tensors outside linear modules differ" in str(caught.value)
    assert "model.norm.weight (by 50 %)" in str(caught.value)
    assert "`drop` other" in str(caught.value)
    assert not (tmp_path / "out").exists()
    done = convert(folder, tmp_path / "out", rank=4, base=base, drop=["other"])
    assert done.dropped[0].name == "model.norm.weight"
    assert done.dropped[0].change == pytest.approx(0.5)
    assert len(done.dropped) == 3
    assert all(module.endswith("q_proj") for module in read_adapter(tmp_path / "out"))


def test_embeddings_and_head_can_be_left_out(tmp_path: Path) -> None:
    base, model = saved(new_model(), tmp_path / "base"), tuned("llama", *MATRICES["llama"])
    done = convert(saved(model, tmp_path / "tuned"), tmp_path / "out", rank=4, base=base, drop=["embeddings", "head"])
    assert {one.name for one in done.dropped} == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all(module.endswith("_proj") for module in read_adapter(tmp_path / "out"))


def resized(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(2, 16)])
    save_file(tensors, file)


def test_a_resized_vocabulary(tmp_path: Path) -> None:
    base, folder = saved(new_model(), tmp_path / "base"), saved(tuned("llama", "q_proj.weight"), tmp_path / "tuned")
    resized(folder)
    with pytest.raises(InputError, match=r"is 52 x 16, and the base's 50 x 16: the vocabulary was resized"):
        convert(folder, tmp_path / "out", rank=4, base=base)
    done = convert(folder, tmp_path / "out", rank=4, base=base, drop=["embeddings", "head"])
    assert {one.name: one.change for one in done.dropped} == {"model.embed_tokens.weight": None, "lm_head.weight": None}


def edited(**changes: object) -> Any:
    def edit(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return edit


def with_tensors(change: Any) -> Any:
    def edit(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return edit


def quantised(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q0}.weight"] = tensors[f"{Q0}.weight"].to(torch.int8)


def not_a_number(tensors: dict[str, Tensor]) -> None:
    tensors[f"{Q0}.weight"][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("edit", "options", "said"),
    [
        (None, {"rank": None}, "rank: is needed"),
        (None, {"drop": ["norms"]}, "drop: cannot be left out (got 'norms')"),
        (None, {"base": None}, "base: the base model's folder is needed"),
        (edited(model_type="mistral"), {}, "the architecture is not that of the base model, 'llama'"),
        (edited(quantization_config={"bits": 4}), {}, "quantization_config: the model is quantised"),
        (with_tensors(quantised), {}, f"{Q0}.weight: is stored as I8, so the model is quantised"),
        (with_tensors(lambda tensors: tensors.pop(f"{Q0}.weight")), {}, "tensors that the tuned model does not have"),
        (with_tensors(lambda tensors: tensors.update(extra=torch.ones(2))), {}, "tensors that the base model does not have: extra"),
        (
            with_tensors(lambda tensors: tensors.update({f"{Q0}.weight": torch.ones(8, 16)})),
            {},
            "is 8 x 16, and the base's 16 x 16",
        ),
    ],
)
def test_refusals_write_nothing(edit: Any, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    base, folder = saved(new_model(), tmp_path / "base"), saved(tuned("llama", "q_proj.weight"), tmp_path / "tuned")
    if edit is not None:
        edit(folder)
    with pytest.raises(InputError) as caught:
        convert(folder, tmp_path / "out", **{"rank": 4, "base": base, **options})
    assert said in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["base", "tuned"]


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "SEQ_2_SEQ_LM"),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "CAUSAL_LM"),
        ({"architectures": ["GPT2LMHeadModel"]}, "CAUSAL_LM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "SEQ_CLS"),
        ({"architectures": ["LlamaModel"]}, None),
        ({}, None),
    ],
)
def test_the_task_is_the_class_of_the_model(config: dict[str, object], task: str | None) -> None:
    assert task_of(config) == task


def test_equal_models_and_the_base_itself(tmp_path: Path) -> None:
    base = saved(new_model(), tmp_path / "base")
    with pytest.raises(InputError, match="changes nothing"):
        convert(saved(new_model(), tmp_path / "tuned"), tmp_path / "out", rank=4, base=base)
    with pytest.raises(InputError, match="own folder"):
        convert(base, base, rank=4, base=base, force=True)
