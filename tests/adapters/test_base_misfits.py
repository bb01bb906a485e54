"""Adapters against model folders written by transformers, or by hand where that is what it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.builders import random_factors
from tests.tiny import tiny_model
from torch import Tensor

from pomona.adapters import Adapter
from pomona.adapters.base_misfits import Misfits, misfits
from pomona.adapters.export.base_folder import read_base_folder
from pomona.adapters.export.checkpoint import Stored
from pomona.errors import InputError

OWN = "Use the base model that it was trained on"
Q0, DOWN, EMBEDDING, HEAD = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.embed_tokens", "lm_head"


def adapter_of(shapes: Mapping[str, tuple[int, int]], embeddings: tuple[str, ...] = (), **provenance: object) -> Adapter:
    """Modules by their (O, I)."""
    generator = torch.Generator().manual_seed(0)
    factors = {module: random_factors(generator, 2, shape[1], shape[0]) for module, shape in shapes.items()}
    return Adapter(factors, provenance=provenance, embeddings=frozenset(embeddings))


def folder_of(path: Path, tensors: Mapping[str, Tensor], **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), path / "model.safetensors")
    return path


def against(adapter: Adapter, folder: Path) -> list[Misfits]:
    return misfits(adapter, read_base_folder(folder))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tiny_model("llama").save_pretrained(folder, max_shard_size="50KB")
    assert (folder / "model.safetensors.index.json").exists()
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    tiny_model("gpt2").save_pretrained(folder)
    return folder


def test_what_fits(llama: Path) -> None:
    shapes = {Q0: (32, 32), DOWN: (32, 48), EMBEDDING: (32, 300), HEAD: (300, 32)}
    assert against(adapter_of(shapes, (EMBEDDING,)), llama) == []


def test_conv1d_is_stored_the_other_way_round(gpt2: Path) -> None:
    # The head is an ordinary linear module, and tied: the files have the embedding only.
    shapes = {"transformer.h.0.attn.c_attn": (96, 32), "transformer.h.1.mlp.c_proj": (32, 128), HEAD: (300, 32)}
    assert against(adapter_of(shapes, fan_in_fan_out=True), gpt2) == []
    assert against(adapter_of(shapes), gpt2) == []  # PEFT itself turns it where a config forgets to say so
    (misfit,) = against(adapter_of({"transformer.h.0.attn.c_attn": (32, 96)}, fan_in_fan_out=True), gpt2)
    assert "adapts a weight of 32 x 96 (out x in), but the base's is 96 x 32 (out x in). Use the base" in misfit.message


def test_a_whole_path_or_none(tmp_path: Path) -> None:
    """Files of a model that was saved without its head lack the first part of every name; nothing else may differ."""
    short = folder_of(tmp_path / "short", {"h.0.attn.c_attn.weight": torch.zeros(8, 24)}, model_type="gpt2")
    long = folder_of(tmp_path / "long", {"language_model.model.layers.0.q.weight": torch.zeros(6, 8)})
    assert against(adapter_of({"transformer.h.0.attn.c_attn": (24, 8)}), short) == []
    for wrong in ("model.layers.0.q", "layers.0.q", "language_model.model.language_model.model.layers.0.q"):
        (misfit,) = against(adapter_of({wrong: (6, 8)}), long)
        assert misfit.message.startswith(f"{wrong}: the base model has no such module")
    (misfit,) = against(adapter_of({"h.0.attn.c_attn": (24, 8), "transformer.transformer.h.0.attn.c_attn": (24, 8)}), short)
    assert misfit.message.startswith("transformer.transformer.h.0.attn.c_attn: the base model has no such module")


def test_other_shapes_are_one_error(llama: Path) -> None:
    shapes = {Q0: (64, 32), "model.layers.0.self_attn.k_proj": (16, 32), DOWN: (48, 32)}
    message = f"{Q0}: adapts a weight of 64 x 32 (out x in), but the base's is 32 x 32 as it is stored. {OWN}; so 1 more module"
    assert against(adapter_of(shapes), llama) == [Misfits("error", message, 2)]


def test_missing_modules_are_one_error(llama: Path) -> None:
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in (1, 2, 3, 4)]
    (misfit,) = against(adapter_of(dict.fromkeys(names, (32, 32))), llama)
    fix = "Use the base model that it was trained on; its nearest name here is model.layers.1.self_attn.q_proj"
    assert misfit == Misfits("error", f"{names[1]}: the base model has no such module. {fix}; so 2 more modules", 3)


def test_another_vocabulary(llama: Path) -> None:
    (misfit,) = against(adapter_of({EMBEDDING: (32, 308)}, (EMBEDDING,)), llama)
    message = f"{EMBEDDING}: adapts an embedding of a vocabulary of 308, but the base's has 300 tokens. If tokens were added"
    assert (misfit.level, misfit.modules, misfit.message.startswith(message)) == ("error", 1, True)
    (head, shape) = against(adapter_of({Q0: (64, 32), HEAD: (308, 32)}), llama)  # it explains the others, so it comes first
    assert head.message.startswith("lm_head: adapts an output head of a vocabulary of 308, but the base's has 300 tokens")
    assert shape.message.startswith(f"{Q0}: adapts a weight of 64 x 32")
    (misfit,) = against(adapter_of({EMBEDDING: (16, 300)}, (EMBEDDING,)), llama)
    assert "adapts an embedding of 300 x 16 (vocabulary x hidden), but the base's is 300 x 32" in misfit.message


@pytest.mark.parametrize(
    ("tensor", "how"),
    [
        ({f"{Q0}.qweight": torch.zeros(4, 32, dtype=torch.int32)}, "packed"),  # GPTQ, AWQ
        ({f"{Q0}.weight_packed": torch.zeros(32, 4, dtype=torch.int32)}, "packed"),  # compressed-tensors
        ({f"{Q0}.weight": torch.zeros(512, 1, dtype=torch.uint8)}, "U8"),  # bitsandbytes, 4 bits
    ],
)
def test_quantised_weights_are_a_warning(tmp_path: Path, tensor: dict[str, Tensor], how: str) -> None:
    folder = folder_of(tmp_path / "base", tensor)
    message = f"{Q0}: the base's weight is quantised ({how}), so shapes cannot be compared"
    assert against(adapter_of({Q0: (32, 32)}), folder) == [Misfits("warning", message, 1)]


def test_eight_bits_that_keep_the_shape_fit(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "base", {f"{Q0}.weight": torch.zeros(32, 32, dtype=torch.int8)})
    assert against(adapter_of({Q0: (32, 32)}), folder) == []


def test_the_older_name_in_the_files_is_the_newer_one(tmp_path: Path) -> None:
    """transformers 5 calls `model.language_model` what older files call `language_model.model`."""
    tensors = {"language_model.model.layers.0.q.weight": torch.zeros(6, 8), "vision.layers.0.q.weight": torch.zeros(4, 4)}
    folder = folder_of(tmp_path / "base", tensors)
    assert against(adapter_of({"model.language_model.layers.0.q": (6, 8)}), folder) == []
    (misfit,) = against(adapter_of({"model.language_model.layers.0.q": (4, 4)}), folder)
    assert misfit.level == "error"


def test_only_headers_are_read(llama: Path) -> None:
    reading = mock.Mock(side_effect=AssertionError("read a tensor"))
    with mock.patch.multiple(Stored, row_blocks=reading, pieces=reading):
        assert against(adapter_of({Q0: (32, 32)}), llama) == []


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder\. Give the base model's folder"):
        read_base_folder(tmp_path / "nowhere")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"model\.gguf: is a file"):
        read_base_folder(tmp_path / "model.gguf")
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        read_base_folder(tmp_path)
