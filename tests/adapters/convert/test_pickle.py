"""Pickles: what holds tensors is read bit for bit, and nothing that one asks for is done."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.adapters.builders import peft_config, peft_tensors, write_folder

from pomona.adapters import read_adapter
from pomona.adapters.convert import convert, sandbox
from pomona.adapters.convert.pickle import tensors_from_pickle
from pomona.errors import InputError


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


def pickled(folder: Path, content: object, *, old: bool = False) -> Path:
    """A PEFT folder whose tensors are in a pickle."""
    write_folder(folder, config=peft_config(lora_alpha=6))
    (folder / "adapter_model.safetensors").unlink()
    torch.save(content, folder / "adapter_model.bin", _use_new_zipfile_serialization=not old)
    return folder


def test_the_old_format_with_bf16_equals_its_twin_bit_for_bit(tmp_path: Path) -> None:
    tensors = peft_tensors()
    first = next(iter(tensors))
    tensors[first] = tensors[first].bfloat16()
    twin = write_folder(tmp_path / "twin", tensors, peft_config(lora_alpha=6))
    done = convert(pickled(tmp_path / "old", tensors, old=True), tmp_path / "out")
    assert (done.kind, done.modules, done.rank, done.approximation) == ("LoRA in a pickle", 4, 4, None)
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {key: tensor.dtype for key, tensor in written.items()} == {key: tensor.dtype for key, tensor in tensors.items()}
    assert all(torch.equal(written[key], tensors[key]) for key in tensors)
    assert read_adapter(tmp_path / "out").fingerprint() == read_adapter(twin).fingerprint()


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float16}, {"rank": 2}], ids=["copied", "rounded", "compressed"])
def test_the_identity_of_the_base_is_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = pickled(tmp_path / "old", peft_tensors())
    base = {"hidden_size": 8, "layers": 2, "model_type": "llama", "vocabulary": 64, "weights": "ab" * 32}
    (folder / "pomona.json").write_text(json.dumps({"base": base}))
    convert(folder, tmp_path / "out", **options)
    assert read_adapter(tmp_path / "out").provenance["base"] == base


def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    folder = pickled(tmp_path / "evil", {**peft_tensors(), "more": Touch(trace)})
    with pytest.raises(InputError) as caught:
        convert(folder / "adapter_model.bin", tmp_path / "out")
    assert f"{os.system.__module__}.system, which is not a tensor" in str(caught.value)
    assert str(folder / "adapter_model.bin") in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["evil"]


@pytest.mark.skipif(sys.platform == "win32", reason="what is run is a shell's")
@pytest.mark.parametrize(
    "deed",
    [
        "pickle.loads(evil)",
        "open(sys.argv[2], 'w')",
        "os.mkdir(sys.argv[2])",
        "os.fork()",
        "socket.socket()",
        "ctypes.CDLL(None)",
        "import wave",
    ],
)
def test_the_walls_hold_without_weights_only(deed: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = "import ctypes, os, pickle, runpy, socket, sys\n"
    code += f"evil = {pickle.dumps(Touch(trace))!r}\nrunpy.run_path(sys.argv[1])['_shut_in'](10)\n"
    code += f"try:\n    {deed}\nexcept RuntimeError as error:\n    print(error)\n"
    command = [sys.executable, "-I", "-c", code, str(sandbox.__file__), str(trace)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the pickle tried to do more than build tensors: ")
    assert not trace.exists()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_tensors_of_every_format(dtype: torch.dtype, old: bool) -> None:
    shared = (100 * torch.randn(4, 6)).to(dtype)
    content: dict[str, Any] = {"a": shared, "b": shared[1:3].T, "c": torch.nn.Parameter(shared.clone(), requires_grad=False)}
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not old)
    stream.seek(0)
    found = sandbox.read_tensors(stream)
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].dtype == dtype
        assert found[name].is_contiguous()
        assert torch.equal(found[name], tensor)
    assert found["a"].untyped_storage().data_ptr() != found["b"].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2)], "holds a list"),
        ({"a": torch.zeros(2), "epoch": 3}, "epoch is a int"),
        ({"a": {"b": torch.zeros(2)}}, "a is a dict"),
        ({3: torch.zeros(2)}, "not text: 3"),
        ({"a": torch.eye(2).to_sparse()}, "a is not a dense tensor"),
        ({}, "holds no tensors"),
    ],
)
def test_what_is_no_state_dict(content: object, said: str) -> None:
    stream = io.BytesIO()
    torch.save(content, stream)
    stream.seek(0)
    with pytest.raises(ValueError, match=said):
        sandbox.read_tensors(stream)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (pickle.dumps({"a": 1}), "was not written by torch.save, and was not opened"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"weights", "was not written by torch.save, and was not opened"),
    ],
)
def test_what_torch_never_wrote_is_not_opened(content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "adapter_model.bin"
    file.write_bytes(content)
    monkeypatch.setattr(subprocess, "run", None)  # would fail
    with pytest.raises(InputError, match=said):
        tensors_from_pickle(file, tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        tensors_from_pickle(tmp_path / "none.bin", tmp_path / "out.safetensors")
