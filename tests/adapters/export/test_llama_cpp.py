from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter, dequantize
from tests.adapters.builders import random_factors
from tests.adapters.export.tiny_models import HEADS, KEY_HEADS, MODELS, build, interleaved, update, write_gguf
from torch import Tensor

from pomona.adapters import Adapter, Factors
from pomona.adapters.export import Base, export_llama_cpp, problems_for, read_base
from pomona.adapters.export.base import ARCHITECTURES
from pomona.errors import InputError, PomonaError

Q0, K0, V1 = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.v_proj"


def base_of(name: str, folder: Path) -> Base:
    build(name).config.save_pretrained(folder / name)
    return read_base(folder / name)


def read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {one.name: torch.from_numpy(dequantize(one.data, one.tensor_type).copy()) for one in reader.tensors}


def test_the_file_of_a_llama(tmp_path: Path) -> None:
    """Ranks and scalings differ by module: llama.cpp's alpha / r times what is written is each module's delta, rows permuted."""
    generator = torch.Generator().manual_seed(0)
    factors = {
        Q0: random_factors(generator, 4, 32, 32, scaling=0.5),
        K0: random_factors(generator, 2, 32, 16, scaling=3.0, dtype=torch.float16),
        V1: random_factors(generator, 1, 32, 16),
        "model.layers.1.mlp.down_proj": random_factors(generator, 3, 48, 32),
    }
    adapter = Adapter(factors)
    done = export_llama_cpp(adapter, tmp_path / "new" / "lora.gguf", base_of("llama", tmp_path))
    fields, tensors = read(tmp_path / "new" / "lora.gguf")
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == "llama"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 4.0
    assert done.details == {"architecture": "llama", "alpha": 4.0, "tensors": 8}
    names = {Q0: "blk.0.attn_q", K0: "blk.0.attn_k", V1: "blk.1.attn_v", "model.layers.1.mlp.down_proj": "blk.1.ffn_down"}
    assert set(tensors) == {f"{name}.weight.lora_{side}" for name in names.values() for side in "ab"}
    for module, name in names.items():
        A, B = tensors[f"{name}.weight.lora_a"], tensors[f"{name}.weight.lora_b"]
        assert A.shape == (factors[module].rank, factors[module].in_features)
        expected = adapter.delta(module)
        if module in {Q0, K0}:
            expected = interleaved(expected, HEADS if module == Q0 else KEY_HEADS)
            assert not torch.allclose(expected, adapter.delta(module))
        torch.testing.assert_close(4.0 / A.shape[0] * B @ A, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma3", "phi3", "gpt2"])
def test_architectures_whose_rows_stay_as_they_are(name: str, tmp_path: Path) -> None:
    model = build(name)
    adapter = update(model, ("q_proj", "k_proj", "qkv_proj", "c_attn", "mlp.c_proj", "gate_up_proj"))
    export_llama_cpp(adapter, tmp_path / "lora.gguf", base_of(name, tmp_path))
    fields, tensors = read(tmp_path / "lora.gguf")
    assert fields["general.architecture"] == MODELS[name][1]
    short = {"q_proj": "attn_q", "k_proj": "attn_k", "qkv_proj": "attn_qkv", "c_attn": "attn_qkv", "c_proj": "ffn_down"}
    for module in adapter:
        layer, end = module.split(".")[2], module.rpartition(".")[2]
        A, B = (tensors[f"blk.{layer}.{short.get(end, 'ffn_up')}.weight.lora_{side}"] for side in "ab")
        delta = fields["adapter.lora.alpha"] / A.shape[0] * B @ A
        torch.testing.assert_close(delta, adapter.delta(module), rtol=1e-5, atol=1e-5)


def test_an_embedding_is_looked_up_by_rows(tmp_path: Path) -> None:
    model = build("llama")
    adapter = update(model, ("embed_tokens", "lm_head"))
    export_llama_cpp(adapter, tmp_path / "lora.gguf", base_of("llama", tmp_path))
    fields, tensors = read(tmp_path / "lora.gguf")
    A, B = tensors["token_embd.weight.lora_a"], tensors["token_embd.weight.lora_b"]
    rank = adapter["model.embed_tokens"].rank
    assert (A.shape, B.shape) == ((64, rank), (32, rank))
    torch.testing.assert_close(fields["adapter.lora.alpha"] / rank * B @ A.T, adapter.delta("model.embed_tokens"))
    assert tensors["output.weight.lora_b"].shape[0] == 64


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "F32"), (torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_dtypes(dtype: torch.dtype, kind: str, tmp_path: Path) -> None:
    adapter = Adapter({V1: random_factors(torch.Generator().manual_seed(0), 3, 32, 16)})
    export_llama_cpp(adapter, tmp_path / "lora.gguf", base_of("llama", tmp_path), dtype=dtype)
    assert {one.tensor_type.name for one in GGUFReader(tmp_path / "lora.gguf").tensors} == {kind}
    _, tensors = read(tmp_path / "lora.gguf")
    assert torch.equal(tensors["blk.1.attn_v.weight.lora_a"], adapter[V1].A.to(dtype).float())


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_file_as_the_base_says_the_same_as_the_folder(name: str, tmp_path: Path) -> None:
    model = build(name)
    file = write_gguf(name, model, tmp_path / "base.gguf")
    folder, found = base_of(name, tmp_path), read_base(file)
    assert folder.architecture is not None
    assert found.architecture is not None
    assert found.architecture.gguf == folder.architecture.gguf == MODELS[name][1]
    assert found.architecture.permuted == folder.architecture.permuted
    assert replace(found, path=folder.path, name=folder.name, architecture=folder.architecture, shapes=None) == folder
    adapter = update(model, ("_proj", "c_attn", "c_proj", "c_fc"))
    for place, base in (("a.gguf", folder), ("b.gguf", found)):
        export_llama_cpp(adapter, tmp_path / place, base)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_a_base_of_other_shapes(tmp_path: Path) -> None:
    base = read_base(write_gguf("llama", build("llama"), tmp_path / "base.gguf"))
    wider = Adapter({V1: random_factors(torch.Generator(), 2, 40, 16)})
    assert "adapts a weight of 16 x 40 at model.layers.1.self_attn.v_proj" in problems_for("llama.cpp", wider, base)[0]
    more = Adapter({Q0: random_factors(torch.Generator(), 2, 32, 40)})
    for one in (base, base_of("llama", tmp_path)):
        assert "has 4 heads of 8 there" in problems_for("llama.cpp", more, one)[0]
    deeper = Adapter({"model.layers.2.self_attn.v_proj": random_factors(torch.Generator(), 2, 32, 16)})
    assert problems_for("llama.cpp", deeper, base)[0].startswith("adapts model.layers.2.self_attn.v_proj, where llama.cpp's llama")


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_one_end_of_a_tied_model(module: str, tmp_path: Path) -> None:
    model = build("llama-tied")
    adapter = update(model, (module,))
    for base in (base_of("llama-tied", tmp_path), read_base(write_gguf("llama-tied", model, tmp_path / "base.gguf"))):
        assert "is one tensor with the other end of this model" in problems_for("llama.cpp", adapter, base)[0]
        with pytest.raises(InputError, match='target="merged"'):
            export_llama_cpp(adapter, tmp_path / "lora.gguf", base)
    assert not (tmp_path / "lora.gguf").exists()


def test_what_llama_cpp_would_pass_over_is_refused(tmp_path: Path) -> None:
    """It looks a position embedding up without asking for a LoRA, and says nothing."""
    adapter = update(build("gpt2"), ("wpe", "c_attn"))
    base = base_of("gpt2", tmp_path)
    assert problems_for("llama.cpp", adapter, base)[0].startswith("adapts transformer.wpe, where llama.cpp's gpt2 takes no LoRA")


def test_without_a_base_only_what_no_architecture_has() -> None:
    fits = Adapter({Q0: random_factors(torch.Generator(), 2)})
    assert problems_for("llama.cpp", fits) == []
    assert problems_for("llama.cpp", Adapter({"model.layers.999999.self_attn.q_proj": fits[Q0]})) == []
    expert = Adapter({"model.layers.0.mlp.experts.3.up_proj": random_factors(torch.Generator(), 2)})
    assert "adapts model.layers.0.mlp.experts.3.up_proj, which llama.cpp has under no name" in problems_for("llama.cpp", expert)[0]


def test_an_architecture_that_is_not_converted_names_those_that_are(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    text = '{"architectures": ["FalconForCausalLM"], "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}'
    (folder / "config.json").write_text(text)
    base = read_base(folder)
    assert (base.architecture, base.key_heads, base.head_size, base.tied) == (None, 4, 8, False)
    with pytest.raises(InputError) as caught:
        export_llama_cpp(Adapter({Q0: random_factors(torch.Generator(), 2)}), tmp_path / "lora.gguf", base)
    assert all(name in str(caught.value) for name in ARCHITECTURES)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "is neither a model folder nor a GGUF file"),
        ("{}", "architectures: does not name the model's class"),
        ('{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 0}', "num_attention_heads: must be a whole number"),
        ('{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 4}', "hidden_size: must be a whole number"),
        ("[", "is not JSON"),
    ],
)
def test_bases_that_cannot_be_read(content: str | None, part: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=part):
        read_base(tmp_path)


@pytest.mark.parametrize("content", [b"not one", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 40])
def test_files_that_are_not_gguf_bases(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(content)
    with pytest.raises(InputError, match="GGUF file"):
        read_base(tmp_path / "base.gguf")


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    export_llama_cpp(Adapter({V1: random_factors(torch.Generator(), 2, 32, 16)}), tmp_path / "a.gguf", base_of("llama", tmp_path))
    with pytest.raises(InputError, match=r"is not a model \(got 'adapter'\)"):
        read_base(tmp_path / "a.gguf")


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    adapter, base = Adapter({V1: random_factors(torch.Generator(), 2, 32, 16)}), base_of("llama", tmp_path)
    out = tmp_path / "lora.gguf"
    export_llama_cpp(adapter, out, base)
    with pytest.raises(InputError, match="already exists"):
        export_llama_cpp(adapter, out, base)
    export_llama_cpp(Adapter({V1: Factors(torch.ones(1, 32), torch.ones(16, 1))}), out, base, force=True)
    assert np.all(read(out)[1]["blk.1.attn_v.weight.lora_a"].numpy() == 1)
    with pytest.raises(InputError, match="is a folder"):
        export_llama_cpp(adapter, tmp_path, base, force=True)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="is not a GGUF file and will not be replaced"):
        export_llama_cpp(adapter, tmp_path / "notes.txt", base, force=True)
    assert (tmp_path / "notes.txt").read_text() == "notes"


def test_values_that_do_not_fit_leave_nothing_behind(tmp_path: Path) -> None:
    adapter, base = Adapter({V1: Factors(torch.full((1, 32), 1e6), torch.ones(16, 1))}), base_of("llama", tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PomonaError, match="nothing was written"):
        export_llama_cpp(adapter, tmp_path / "lora.gguf", base, dtype=torch.float16)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, base = Adapter({V1: random_factors(torch.Generator(), 2, 32, 16)}), base_of("llama", tmp_path)
    before = sorted(tmp_path.iterdir())

    def full(writer: GGUFWriter) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        export_llama_cpp(adapter, tmp_path / "lora.gguf", base)
    assert sorted(tmp_path.iterdir()) == before
