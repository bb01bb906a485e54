"""Which model a base is: the same for any copy of it, another for any other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import save_tiny_model, tiny_backbone, tiny_model

from pomona.adapters.base_identity import BaseIdentity, hash_of, identity_of_folder, identity_of_tensors
from pomona.backbone.load import load_backbone

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("identity") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def identity(folder: Path) -> BaseIdentity:
    found = identity_of_folder(folder)
    assert found is not None
    return found


def test_it_says_the_sizes_of_the_text_model(folder: Path) -> None:
    found = identity(folder)
    assert (found.model_type, found.hidden_size, found.layers, found.vocabulary) == ("llama", 32, 2, 300)
    assert found.weights is not None
    assert len(found.weights) == 64
    assert BaseIdentity.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_a_model_in_memory_is_the_one_that_was_saved(folder: Path) -> None:
    model = tiny_backbone().model
    assert identity_of_tensors(model.config.to_dict(), model.state_dict()) == identity(folder)
    gpt2 = tiny_model("gpt2")
    found = identity_of_tensors(gpt2.config.to_dict(), gpt2.state_dict())
    assert (found.model_type, found.hidden_size, found.layers, found.vocabulary) == ("gpt2", 32, 2, 300)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_in_which_a_model_is_loaded_plays_no_part(folder: Path, dtype: str) -> None:
    assert load_backbone(str(folder), "cpu", dtype).base.identity == identity(folder)


def test_copies_are_one_model_whatever_their_layout(folder: Path, copy: Path) -> None:
    """In bfloat16, under a hub's names, with the masks and rotations of old files, in shards, or as a tied copy."""
    tensors = load_file(copy / WEIGHTS)
    others = {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "layers.0.rotary_emb.inv_freq": torch.ones(4)}
    half = {name.removeprefix("model."): tensor.bfloat16() for name, tensor in tensors.items()} | others
    save_file(half, copy / WEIGHTS)
    assert identity(copy) == identity(folder)
    (copy / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, copy / file)
    (copy / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": files}))
    assert identity(copy) == identity(folder)
    first, second = torch.arange(6.0).view(2, 3), torch.arange(4.0)
    entries = [(str(place), tuple(one.shape), lambda a, b, one=one: one.view(-1)[a:b]) for place, one in enumerate((first, second))]
    assert hash_of(entries) == hash_of([*reversed(entries), entries[0]]) != hash_of(entries[:1])


def test_every_tensor_counts(folder: Path, copy: Path) -> None:
    """A change as small as fine-tuning makes, in one tensor alone."""
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in tensors.items():
        save_file(tensors | {name: tensor * 1.01}, copy / WEIGHTS)
        assert identity(folder).differences(identity(copy)) == ["weights"], name


def test_other_sizes_are_reported_by_name() -> None:
    one = BaseIdentity("llama", 32, 2, 300, "a")
    other = BaseIdentity("qwen2", 48, 3, 320, "b")
    assert one.differences(one) == []
    assert one.differences(other) == [
        "model type (llama, here qwen2)",
        "hidden size (32, here 48)",
        "layers (2, here 3)",
        "vocabulary size (300, here 320)",
        "weights",
    ]
    assert one.differences(BaseIdentity(layers=2)) == BaseIdentity().differences(other) == []


def test_the_text_model_within_a_larger_one(copy: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 8, "num_hidden_layers": 1}}
    (copy / "config.json").write_text(json.dumps(config))
    found = identity(copy)
    assert (found.model_type, found.hidden_size, found.layers, found.vocabulary) == ("gemma3_text", 8, 1, None)


def test_folders_that_say_less(copy: Path, tmp_path: Path) -> None:
    whole = identity(copy)
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:5000])
    assert identity(copy) == BaseIdentity("llama", 32, 2, 300, None)
    (copy / WEIGHTS).unlink()
    assert identity(copy) == BaseIdentity("llama", 32, 2, 300, None)
    assert whole.differences(identity(copy)) == []
    (copy / "config.json").write_text("{")
    assert identity_of_folder(copy) is identity_of_folder(tmp_path / "nowhere") is None


@pytest.mark.parametrize("values", [None, "llama", [], {}, {"layers": "2", "weights": 3, "vocabulary": True}])
def test_what_is_no_identity(values: object) -> None:
    assert BaseIdentity.from_json(values) is None
