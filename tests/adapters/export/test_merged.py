from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.builders import random_factors
from tests.adapters.export.tiny_models import TOKENS, build, transformers_logits, update
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from pomona.adapters import Adapter, Factors, write_adapter
from pomona.adapters.export import checkpoint, export_merged
from pomona.errors import InputError, PomonaError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
]
LINEAR = ("q_proj", "v_proj", "down_proj", "c_attn", "attn.c_proj", "mlp.c_proj")


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def loaded(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def by_peft(model: PreTrainedModel, adapter: Adapter, folder: Path) -> Any:
    write_adapter(adapter, folder)
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=torch.tensor([TOKENS])).logits[0]


def untied(model: PreTrainedModel) -> PreTrainedModel:
    apart = copy.deepcopy(model)
    apart.lm_head.weight = nn.Parameter(apart.lm_head.weight.detach().clone(), requires_grad=False)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return apart


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "gemma3", "gpt2"])
def test_the_weights_are_those_that_peft_merges(name: str, tmp_path: Path) -> None:
    model = build(name)
    adapter = update(model, LINEAR)
    done = export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))
    merged = loaded(tmp_path / "out")
    expected: dict[str, Tensor] = by_peft(model, adapter, tmp_path / "adapter").merge_and_unload().state_dict()
    assert merged.state_dict().keys() == expected.keys()
    for path, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, expected[path], rtol=1e-5, atol=1e-6, msg=path)
    assert (logits(merged) - logits(model)).abs().max() > 0.1
    assert done.details["untied"] is False
    assert merged.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "base" / "config.json").read_bytes()


def test_head_and_embedding_of_a_model_that_does_not_tie_them(tmp_path: Path) -> None:
    model = build("llama")
    adapter = update(model, ("lm_head", "embed_tokens", "q_proj"))
    done = export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))
    expected = by_peft(model, adapter, tmp_path / "adapter").merge_and_unload().state_dict()
    for path, weight in loaded(tmp_path / "out").state_dict().items():
        torch.testing.assert_close(weight, expected[path], rtol=1e-5, atol=1e-6, msg=path)
    assert done.details["untied"] is False


@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "gpt2"])
@pytest.mark.parametrize("ends", [("lm_head",), ("embed_tokens", "wte"), ("lm_head", "embed_tokens", "wte")])
def test_what_is_tied_comes_apart_exactly(name: str, ends: tuple[str, ...], tmp_path: Path) -> None:
    model = build(name)
    adapter = update(model, (*ends, "down_proj"))
    done = export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))
    assert done.details["untied"] is True
    merged = loaded(tmp_path / "out")
    assert merged.config.tie_word_embeddings is False
    expected = transformers_logits(untied(model), TOKENS, adapter)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(by_peft(model, adapter, tmp_path / "adapter")), expected, rtol=1e-4, atol=1e-4)
    head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    source: Any = model.get_input_embeddings().weight
    if "lm_head" not in ends:
        assert torch.equal(head.weight, source)  # pyright: ignore[reportOptionalMemberAccess]
    if ends == ("lm_head",):
        assert torch.equal(embedding.weight, source)  # pyright: ignore[reportArgumentType]


def test_a_tied_model_with_a_head_in_its_files(tmp_path: Path) -> None:
    """transformers never looks at that head, so the update belongs on the embedding's weight."""
    model = build("llama-tied")
    base = saved(model, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    save_file({**tensors, "lm_head.weight": torch.zeros(64, 32)}, base / "model.safetensors", metadata={"format": "pt"})
    adapter = update(model, ("lm_head",))
    export_merged(adapter, tmp_path / "out", base)
    torch.testing.assert_close(
        logits(loaded(tmp_path / "out")), transformers_logits(untied(model), TOKENS, adapter), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("ends", [("c_attn", "c_proj"), ("lm_head", "c_fc")])
def test_gpt2_as_it_is_on_the_hub_without_the_first_part_of_its_names(ends: tuple[str, ...], tmp_path: Path) -> None:
    model = build("gpt2")
    base = saved(model, tmp_path / "base")
    tensors = {name.removeprefix("transformer."): one for name, one in load_file(base / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril().to(torch.uint8)  # old files hold the causal mask
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter = update(model, ends)
    export_merged(adapter, tmp_path / "out", base)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert set(written) == set(tensors) | ({"lm_head.weight"} if "lm_head" in ends else set())
    assert torch.equal(written["h.0.attn.bias"], tensors["h.0.attn.bias"])
    expected = transformers_logits(untied(model), TOKENS, adapter)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_shards_stay_shards(tied: bool, tmp_path: Path) -> None:
    model = build("llama-tied" if tied else "llama")
    base = saved(model, tmp_path / "base", max_shard_size="20KB")
    index = json.loads((base / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    adapter = update(model, ("q_proj", "lm_head"))
    export_merged(adapter, tmp_path / "out", base)
    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    added = {"lm_head.weight": index["weight_map"]["model.embed_tokens.weight"]} if tied else {}
    assert written["weight_map"] == {**index["weight_map"], **added}
    sizes = [tensor.nbytes for file in (tmp_path / "out").glob("*.safetensors") for tensor in load_file(file).values()]
    assert written["metadata"]["total_size"] == sum(sizes)
    expected = transformers_logits(untied(model), TOKENS, adapter)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "size", "warned"), [(torch.bfloat16, 0.02, True), (torch.float16, 0.2, False)])
def test_the_rounding_that_is_reported(
    dtype: torch.dtype, size: float, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK_ENTRIES", 200)  # several blocks to a matrix, the last one smaller
    model = build("llama").to(dtype)  # pyright: ignore[reportArgumentType]
    adapter = update(model, ("q_proj", "down_proj"), size=size)
    done = export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))
    written = load_file(tmp_path / "out" / "model.safetensors")
    lost, whole = {}, {}
    for module in adapter:
        W = model.get_parameter(f"{module}.weight").double()
        delta = adapter[module].scaling * adapter[module].B.double() @ adapter[module].A.double()
        result = written[f"{module}.weight"]
        assert result.dtype == dtype
        assert torch.equal(result, (W + delta).to(dtype))
        lost[module], whole[module] = float((result.double() - (W + delta)).norm()), float(delta.norm())
    rounding: Any = done.details["rounding"]
    worst = max(lost, key=lambda module: lost[module] / whole[module])
    overall = sum(value**2 for value in lost.values()) ** 0.5 / sum(value**2 for value in whole.values()) ** 0.5
    assert rounding["error"] == pytest.approx(overall, rel=1e-9)
    assert rounding["worst_module"] == worst
    assert rounding["worst_error"] == pytest.approx(lost[worst] / whole[worst], rel=1e-9)
    assert [f"at {worst}" in warning for warning in done.warnings] == ([True] if warned else [])


def test_what_is_not_adapted_is_the_same_bits_and_weights_of_other_formats_stay_behind(tmp_path: Path) -> None:
    model = build("qwen2").to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    base = saved(model, tmp_path / "base")
    for name in ("tokenizer.json", "original/params.json", "LICENSE"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(name)
    for name in (
        "pytorch_model.bin",
        "original/consolidated.00.pth",
        ".hidden",
        "other.safetensors",
        "pytorch_model.bin.index.json",
    ):
        (base / name).write_bytes(b"weights")
    adapter = update(model, ("layers.1.self_attn.q_proj",))
    export_merged(adapter, tmp_path / "out", base)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"model.layers.1.self_attn.q_proj.weight"}
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    others = {"config.json", "generation_config.json", "tokenizer.json", "original/params.json", "LICENSE"}
    assert found == {*others, "model.safetensors"}
    assert (tmp_path / "out" / "original" / "params.json").read_text() == "original/params.json"


def test_a_checkpoint_with_more_in_front_of_its_names(tmp_path: Path) -> None:
    """transformers would not load it into a Llama, so it is not the base; a Gemma that sees is one under both of its names."""
    model = build("llama")
    base = saved(model, tmp_path / "base")
    prefixed = {f"language_model.{name}": tensor for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(prefixed, base / "model.safetensors", {"format": "pt"})
    adapter = update(model, ("q_proj",))
    with pytest.raises(InputError, match=r"the base model has no such module.*nearest name here is language_model\.model\.layers"):
        export_merged(adapter, tmp_path / "out", base)
    newer = replace(adapter, factors={module.replace("model.", "model.language_model."): adapter[module] for module in adapter})
    export_merged(newer, tmp_path / "out", base)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in prefixed.items():
        module = name.removeprefix("language_model.").removesuffix(".weight")
        expected = tensor.double() + adapter[module].delta(torch.float64) if module in adapter else tensor
        assert torch.equal(merged[name], expected.to(tensor.dtype))


def test_an_update_of_zero_changes_nothing(tmp_path: Path) -> None:
    model = build("llama")
    adapter = update(model, ("q_proj",), size=0.0)
    done = export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "base" / "model.safetensors").read_bytes()
    assert done.details["rounding"] == {"error": 0.0, "worst_module": adapter.modules[0], "worst_error": 0.0}


Q = "model.layers.0.self_attn.q_proj"


def _config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _with_tensor(folder: Path, name: str, tensor: Tensor) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), name: tensor}, file)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _broken_index(folder: Path) -> None:
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    wrong = {"weight_map": {**dict.fromkeys(names, "a.safetensors"), "lost.weight": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(wrong))


def _leading_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda base: _config(base, quantization_config={"quant_method": "gptq"}), "is quantised"),
        (lambda base: _with_tensor(base, f"{Q}.weight", torch.zeros(32, 32, dtype=torch.int8)), "before it was quantised"),
        (lambda base: _with_tensor(base, f"{Q}.weight", torch.zeros(32, 30)), "32 x 32 (out x in), but the base's is 32 x 30"),
        (lambda base: _cut(base / "model.safetensors"), "is not a sound safetensors file"),
        (_only_pickle, "has no model.safetensors, only pytorch_model.bin"),
        (_broken_index, "lost.weight: is not in a.safetensors"),
        (_leading_out, "does not say which tensor is in which file"),
        (lambda base: (base / "config.json").unlink(), "has no config.json"),
        (lambda base: (shutil.rmtree(base), base.write_bytes(b"GGUF")), "is one file and not a model folder"),
    ],
)
def test_bases_that_are_refused(spoil: Any, part: str, tmp_path: Path) -> None:
    model = build("llama")
    base = saved(model, tmp_path / "base")
    spoil(base)
    with pytest.raises(InputError) as caught:
        export_merged(update(model, ("q_proj",)), tmp_path / "out", base)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_a_module_that_the_base_does_not_have(tmp_path: Path) -> None:
    model = build("llama")
    adapter = Adapter({"model.layers.7.self_attn.q_proj": random_factors(torch.Generator(), 2, 32, 32)})
    with pytest.raises(InputError, match=r"model\.layers\.7\.self_attn\.q_proj: the base model has no such module"):
        export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))


def test_a_sum_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    model = build("llama").to(torch.float16)  # pyright: ignore[reportArgumentType]
    adapter = Adapter({Q: Factors(torch.full((1, 32), 1e3), torch.full((32, 1), 1e3))})
    with pytest.raises(PomonaError, match="does not fit the base's F16, nothing was written"):
        export_merged(adapter, tmp_path / "out", saved(model, tmp_path / "base"))
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_values_that_are_not_finite_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = build("llama")
    adapter = update(model, ("q_proj",))
    bad = Factors(adapter[Q].A.clone().fill_(torch.nan), adapter[Q].B)
    with pytest.raises(InputError, match="NaN"):
        export_merged(replace(adapter, factors={**adapter.factors, Q: bad}), tmp_path / "out", saved(model, tmp_path / "base"))
    assert not (tmp_path / "out").exists()


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    model = build("llama")
    base = saved(model, tmp_path / "models" / "base")
    adapter = update(model, ("q_proj",))
    out = tmp_path / "out"
    export_merged(adapter, out, base)
    with pytest.raises(InputError, match="already exists"):
        export_merged(adapter, out, base)
    (out / "model-00002.safetensors").touch()
    export_merged(adapter, out, base, force=True)
    assert not (out / "model-00002.safetensors").exists()
    (out / "checkpoint-500").mkdir()
    for foreign in ("checkpoint-500/optimizer.pt", "trainer_state.json"):
        (out / foreign).touch()
        with pytest.raises(InputError, match=f"also holds {foreign}, which Pomona does not write"):
            export_merged(adapter, out, base, force=True)
        (out / foreign).unlink()
    for place in (base, base / "within", tmp_path / "models"):
        with pytest.raises(InputError, match="is the base model's own folder"):
            export_merged(adapter, place, base, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="will not be replaced"):
        export_merged(adapter, tmp_path / "other", base, force=True)
