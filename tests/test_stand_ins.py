"""Git LFS pointers and byte-order marks wherever a file is read: in data, recipes, models and their indices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.builders import peft_config, write_folder

from pomona.adapters import check_adapters, read_adapter
from pomona.adapters.export.base import read_base
from pomona.adapters.export.checkpoint import read_checkpoint
from pomona.backbone.load import load_backbone
from pomona.data.formats import read_rows
from pomona.errors import InputError
from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import TrainRecipe
from pomona.stand_ins import refuse_pointers, refuse_stand_in

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
SAYS = r"is a Git LFS pointer and not the file itself\. Run `git lfs pull`"
MARK = b"\xef\xbb\xbf"


def test_real_files_are_left_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    for file in folder.iterdir():
        refuse_stand_in(file, file.read_bytes()[:64])
    refuse_pointers(folder)


@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.tsv", "data.json", "data.parquet"])
def test_data(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name}: {SAYS}"):
        read_rows(tmp_path / name)


def test_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(POINTER)
    with pytest.raises(InputError, match=rf"recipe\.yaml: {SAYS}"):
        read_recipe(tmp_path / "recipe.yaml", TrainRecipe)


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json", "config.json"])
def test_a_model_to_load(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name}: {SAYS}"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_base_to_compare(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name}: {SAYS}"):
        read_checkpoint(tmp_path)
    found = check_adapters([write_folder(tmp_path / "a")], tmp_path)
    assert any("git lfs pull" in finding.message for finding in found if finding.level == "error")


def test_a_gguf_base(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_text(POINTER)
    with pytest.raises(InputError, match=SAYS):
        read_base(tmp_path / "base.gguf")


def test_byte_order_marks(tmp_path: Path) -> None:
    """Adapter configs, base configs, indices, recipes and data."""
    folder = write_folder(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(MARK + json.dumps(peft_config()).encode())
    assert len(read_adapter(folder)) == 4
    config = {"architectures": ["LlamaForCausalLM"], "num_attention_heads": 2, "hidden_size": 8, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_bytes(MARK + json.dumps(config).encode())
    assert read_base(tmp_path).heads == 2
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_bytes(MARK + b'{"weight_map": {"a": "one.safetensors"}}')
    assert list(read_checkpoint(tmp_path).tensors) == ["a"]
    (tmp_path / "recipe.yaml").write_bytes(MARK + b"data: 1\n")
    with pytest.raises(InputError, match=r"yaml: data: (?!is missing)"):
        read_recipe(tmp_path / "recipe.yaml", TrainRecipe)
    (tmp_path / "data.csv").write_bytes(MARK + b"x,y\n1,2\n")
    assert [row.fields for row in read_rows(tmp_path / "data.csv")] == [{"x": "1", "y": "2"}]
    (tmp_path / "data.json").write_bytes(MARK + b'[{"x": 1}]')
    assert [row.fields for row in read_rows(tmp_path / "data.json")] == [{"x": 1}]
