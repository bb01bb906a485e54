from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pomona.adapters.tensors import TensorFile, TensorInfo, all_finite, tensor_info, write_tensors
from pomona.errors import InputError

TENSORS = {
    "b": torch.arange(6.0).view(2, 3),
    "a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "h": torch.tensor([[0.5]], dtype=torch.float16),
    "ü": torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).T,
}


def write(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_tensors(file, {name: tensor_info(tensor) for name, tensor in tensors.items()}, iter(tensors.items()))


def test_the_library_reads_the_written_file(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", TENSORS)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_begin_at_a_multiple_of_eight(tmp_path: Path) -> None:
    for count in range(1, 5):
        file = tmp_path / f"{count}.safetensors"
        write(file, {"x" * count: torch.ones(1)})
        assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    for name, tensor in TENSORS.items():
        assert file.info[name] == tensor_info(tensor)
        assert torch.equal(file.read(name)[0], tensor)


@pytest.mark.parametrize("names", [("x", "y", "z"), ("y", "z"), ("z", "y"), ("x", "z"), ("z", "h"), ("h", "x")])
def test_several_tensors_in_one_go_or_not(tmp_path: Path, names: tuple[str, ...]) -> None:
    tensors = {"x": torch.rand(3, 2), "y": torch.rand(1, 5), "z": torch.rand(2, 2), "h": torch.ones(3, dtype=torch.float16)}
    write(tmp_path / "x.safetensors", tensors)
    found = TensorFile(tmp_path / "x.safetensors").read(*names)
    assert all(torch.equal(one, tensors[name]) and one.shape == tensors[name].shape for one, name in zip(found, names, strict=True))


@pytest.mark.parametrize("bad", ["x", "y", "z"])
def test_the_tensor_that_is_not_finite_is_named(tmp_path: Path, bad: str) -> None:
    tensors = {name: torch.ones(2, 3) for name in "xyz"}
    tensors[bad][1, 2] = float("nan")
    write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(InputError, match=f"{bad}: holds NaN"):
        TensorFile(tmp_path / "x.safetensors").read(*tensors)


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ({"x": TensorInfo((2,), "F32"), "y": TensorInfo((1,), "F32")}, "y"),
        ({"x": TensorInfo((3,), "F32")}, "x"),
        ({"x": TensorInfo((2,), "F16")}, "x"),
        ({"z": TensorInfo((2,), "F32")}, "x"),
        ({}, "x"),
    ],
)
def test_a_tensor_that_the_layout_does_not_have(tmp_path: Path, layout: dict[str, TensorInfo], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        write_tensors(tmp_path / "x.safetensors", layout, [("x", torch.ones(2))])


def test_a_file_that_is_cut_after_it_was_opened(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {"x": torch.ones(100)})
    file = TensorFile(tmp_path / "x.safetensors")
    with (tmp_path / "x.safetensors").open("r+b") as stream:
        stream.truncate(200)
    with pytest.raises(InputError, match=r"x\.safetensors: x: ends before its last tensor"):
        file.read("x")


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {"x": torch.ones(3)})
    file = TensorFile(tmp_path / "x.safetensors")
    write(tmp_path / "new", {"x": torch.zeros(3)})
    (tmp_path / "new").rename(tmp_path / "x.safetensors")
    assert file.read("x")[0].tolist() == [1.0, 1.0, 1.0]


def test_the_file_is_closed_with_its_reader(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {"x": torch.ones(3)})
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limit[1]), limit[1]))
    try:
        for _ in range(400):
            TensorFile(tmp_path / "x.safetensors").read("x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_all_finite(dtype: torch.dtype) -> None:
    values = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)  # finite, though their sum is not
    assert all_finite(values)
    assert all_finite(torch.empty(0, dtype=dtype))
    for bad in (float("nan"), float("inf"), float("-inf")):
        values[500] = bad
        assert not all_finite(values)
        assert not all_finite(torch.tensor([[0.0, bad]], dtype=dtype))
    assert not all_finite(torch.tensor([float("inf"), float("-inf")], dtype=dtype))


def test_header_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "x", {"x": torch.ones(2, 3)})
    raw = (tmp_path / "x").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header == {"__metadata__": {"format": "pt"}, "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
