"""Whole tensors beside the factors: kept, put in the base's place, taken for copies, or refused, as PEFT would have it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.builders import embedding_tensors, peft_config, peft_tensors, write_folder
from tests.adapters.test_peft import IDS, logits, new_llama, saved_by_peft
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from pomona.adapters import check_adapters, check_finite, read_adapter, write_adapter
from pomona.adapters.export import export_merged, export_peft, problems_for
from pomona.adapters.measure import describe_adapter
from pomona.backbone.base_copies import proven_copies
from pomona.backbone.load import Backbone
from pomona.errors import InputError
from pomona.merging import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]
TENSORS = "adapter_model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return new_llama()


def shaken(model: nn.Module, *names: str) -> None:
    """Weights that a training would have changed."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def trained_head(llama: PreTrainedModel, folder: Path, module: str = "lm_head") -> nn.Module:
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], modules_to_save=[module], init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(llama), config).eval()
    shaken(adapted, "modules_to_save")
    adapted.save_pretrained(str(folder))
    return adapted


def on_peft(model: PreTrainedModel, folder: Path) -> torch.Tensor:
    return logits(peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval())


def exported(adapter_folder: Path, model: PreTrainedModel, tmp_path: Path) -> Any:
    model.save_pretrained(str(tmp_path / "base"))
    export_merged(read_adapter(adapter_folder), tmp_path / "merged", tmp_path / "base")
    return AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged")).eval()


@pytest.mark.parametrize(("tied", "module"), [(False, "lm_head"), (False, "embed_tokens"), (True, "embed_tokens")])
def test_a_trained_module_goes_with_the_adapter(tied: bool, module: str, tmp_path: Path) -> None:
    model = new_llama(tied=tied)
    adapted = trained_head(model, tmp_path / "a", module)
    expected = logits(adapted)
    adapter = read_adapter(tmp_path / "a")
    assert list(adapter.whole) == [HEAD if module == "lm_head" else EMBEDDING]
    check_finite(adapter)
    write_adapter(merge([adapter, adapter], "svd", [0.25, 0.75]), tmp_path / "b")
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["modules_to_save"] == [module]
    torch.testing.assert_close(on_peft(model, tmp_path / "b"), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(exported(tmp_path / "a", model, tmp_path)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The new embeddings:UserWarning")
@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_a_resized_vocabulary_are_kept(tied: bool, tmp_path: Path) -> None:
    model = new_llama(tied=tied)
    grown = copy.deepcopy(model)
    grown.resize_token_embeddings(53)
    shaken(grown, "embed_tokens", "lm_head")
    adapted: Any = saved_by_peft(grown, tmp_path / "unused", target_modules=["q_proj"])
    adapted.save_pretrained(str(tmp_path / "a"), save_embedding_layers=True)
    adapter = read_adapter(tmp_path / "a")
    assert {name: tensor.shape[0] for name, tensor in adapter.whole.items()} == {EMBEDDING: 53, HEAD: 53}
    loaded = exported(tmp_path / "a", model, tmp_path)
    assert (loaded.config.vocab_size, loaded.config.tie_word_embeddings) == (53, tied)
    ids = torch.tensor([[3, 52, 51, 4, 50]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, adapted(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
    told = export_peft(adapter, tmp_path / "b")
    assert "model.resize_token_embeddings(53)" in str(told.warnings)
    bare = copy.deepcopy(model)
    bare.resize_token_embeddings(53)
    torch.testing.assert_close(on_peft(bare, tmp_path / "b"), logits(adapted), rtol=1e-5, atol=1e-5)
    found = {finding.message: finding.level for finding in check_adapters([tmp_path / "a"], tmp_path / "base")}
    assert found[f"{EMBEDDING}: is brought whole for 53 tokens, and the base's has 50"] == "warning"


def test_copies_of_the_base_are_reported_and_dropped(llama: PreTrainedModel, tmp_path: Path) -> None:
    adapted: Any = saved_by_peft(llama, tmp_path / "unused", target_modules=["q_proj"])
    adapted.save_pretrained(str(tmp_path / "a"), save_embedding_layers=True)
    llama.save_pretrained(str(tmp_path / "base"))
    found = {finding.message: finding.level for finding in check_adapters([tmp_path / "a"], tmp_path / "base")}
    for name in (HEAD, EMBEDDING):
        assert found[f"{name}: is brought whole, and is a copy of the base's own"] == "ok"
    backbone: Any = Backbone(llama, None, "tiny")  # pyright: ignore[reportArgumentType]
    (told,) = proven_copies(read_adapter(tmp_path / "a"), backbone)
    assert told.endswith(f"left out as copies of the model's own: {EMBEDDING}, {HEAD}")
    trained_head(llama, tmp_path / "b")
    with pytest.raises(InputError, match=rf"b: {HEAD}: is brought whole and is not the model's own.*export --for merged"):
        proven_copies(read_adapter(tmp_path / "b"), backbone)


def test_unlike_tensors_are_refused_and_a_lone_one_is_told(llama: PreTrainedModel, tmp_path: Path) -> None:
    trained_head(llama, tmp_path / "a")
    saved_by_peft(llama, tmp_path / "b", target_modules=["q_proj"])
    a, b = read_adapter(tmp_path / "a"), read_adapter(tmp_path / "b")
    merged = merge([b, a], "concat")
    told = f"{HEAD} is taken over whole from {tmp_path}/a; {tmp_path}/b was trained on the base's own"
    assert told in merged.provenance["warnings"]  # type: ignore[operator]
    assert torch.equal(merged.whole[HEAD], a.whole[HEAD])
    trained_head(new_llama(), tmp_path / "c")
    tensors = load_file(tmp_path / "c" / TENSORS)
    save_file({key: tensor * 2 for key, tensor in tensors.items()}, tmp_path / "c" / TENSORS)
    with pytest.raises(InputError, match=rf"c: {HEAD}: brings a whole {HEAD} of its own, unlike that of .*a, and whole tensors"):
        merge([a, read_adapter(tmp_path / "c")], "concat")
    assert any(HEAD in finding.message and finding.level == "error" for finding in check_adapters([tmp_path / "a", tmp_path / "c"]))


def test_a_classifier_keeps_its_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_labels": 3}
    model = LlamaForSequenceClassification(LlamaConfig(**shape, num_attention_heads=2, pad_token_id=0)).eval()
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS", init_lora_weights=False)
    adapted: Any = peft.get_peft_model(copy.deepcopy(model), config).eval()
    shaken(adapted, "modules_to_save")
    adapted.save_pretrained(str(tmp_path / "a"))
    shaken(adapted, "modules_to_save")
    adapted.save_pretrained(str(tmp_path / "b"))
    adapter = read_adapter(tmp_path / "b")
    write_adapter(merge([adapter], "concat"), tmp_path / "m")
    loaded: Any = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "m")).eval()
    assert isinstance(loaded, peft.PeftModelForSequenceClassification)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, adapted(input_ids=IDS).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"has the task_type SEQ_CLS and brings a whole score\.weight of its own"):
        merge([read_adapter(tmp_path / "a"), adapter], "concat")
    new_llama().save_pretrained(str(tmp_path / "causal"))
    with pytest.raises(InputError, match=r"score\.weight: the adapter brings this tensor whole, for SEQ_CLS, and the base"):
        export_merged(adapter, tmp_path / "out", tmp_path / "causal")


def test_programs_that_load_factors_only_refuse_them(tmp_path: Path) -> None:
    tensors = {
        **peft_tensors(),
        f"base_model.model.{HEAD}": torch.ones(30, 12),
        f"base_model.model.{EMBEDDING}": torch.ones(30, 12),
    }
    adapter = read_adapter(write_folder(tmp_path / "a", tensors))
    for program, name in (("vllm", "vLLM"), ("llama.cpp", "llama.cpp")):
        (problem,) = problems_for(program, adapter)
        assert problem == (
            f"brings whole tensors ({EMBEDDING} and 1 more), and {name} loads factors only. Export it with --for merged."
        )
    assert problems_for("peft", adapter) == []
    assert describe_adapter(adapter)["whole"] == [
        {"parameter": EMBEDDING, "shape": [30, 12]},
        {"parameter": HEAD, "shape": [30, 12]},
    ]


def test_a_raw_state_dict_and_an_old_peft(tmp_path: Path) -> None:
    """A dump has a trained module under the adapter's name, the base's beside it; old PEFT wrote an embedding's copy plainly."""
    head = "base_model.model.lm_head"
    dump = {f"{head}.modules_to_save.default.weight": torch.ones(30, 12), f"{head}.original_module.weight": torch.zeros(30, 12)}
    config = peft_config(modules_to_save=["lm_head"])
    adapter = read_adapter(write_folder(tmp_path / "a", {**peft_tensors(), **dump}, config))
    assert {name: float(tensor.mean()) for name, tensor in adapter.whole.items()} == {HEAD: 1.0}
    old = {key.replace(".base_layer", ""): tensor for key, tensor in embedding_tensors().items()}
    adapter = read_adapter(write_folder(tmp_path / "b", old, peft_config(target_modules=["embed_tokens"])))
    assert dict(adapter.whole) == {}
    assert "copies of the base model's own weights at model.embed_tokens" in str(adapter.provenance["warnings"])
