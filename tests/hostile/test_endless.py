"""Inputs that never end: named pipes, devices, sockets, files with holes, and expressions that backtrack. Each has a limit."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from safetensors.torch import save_file
from tests.adapters.builders import Q0, peft_config, peft_tensors, write_folder
from tests.end_to_end.setting import call, write_recipe

from pomona import patterns
from pomona.adapters import read_adapter
from pomona.errors import InputError
from pomona.match_names import match_names
from pomona.patterns import Expressions

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
LONG = "model.layers.0." + "a" * 200


def refused(folder: Path, *arguments: str) -> str:
    started = time.monotonic()
    outcome = call(folder, *arguments)
    assert time.monotonic() - started < 10
    assert (outcome.code, outcome.out) == (2, ""), outcome
    *stages, line = outcome.err.splitlines()
    assert all(one.startswith(("reading data", "loading")) for one in stages)
    return line


@pytest.fixture(params=["a named pipe", "a socket", "a device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A path to what is no file, and what it is."""
    path = Path(os.path.relpath(tmp_path / "it"))  # a socket's name has 100 bytes at most
    if request.param == "a named pipe":
        os.mkfifo(path)
        yield tmp_path / "it", request.param
    elif request.param == "a device":
        (tmp_path / "it").symlink_to("/dev/zero")
        yield tmp_path / "it", request.param
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
            yield tmp_path / "it", request.param


def test_as_data(special: tuple[Path, str], tmp_path: Path) -> None:
    path, kind = special
    for suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        named = path.with_suffix(suffix)
        named.symlink_to(path)
        write_recipe(tmp_path / "recipe.yaml", {"data": {"train": str(named)}, "sources": [{"name": "a", "adapter": "a"}]})
        assert f"{named}: is {kind} and no file" in refused(tmp_path, "adapt", "recipe.yaml")
    assert f"is {kind}" in refused(tmp_path, "evaluate", "--data", str(named), "--task", "summarization")


def test_as_adapter_or_model(special: tuple[Path, str], tmp_path: Path) -> None:
    path, kind = special
    write_folder(tmp_path / "good")
    for arguments in (
        ("inspect", "it"),
        ("merge", "good", "it", "-o", "out"),
        ("convert", "it", "--output", "out"),
        ("export", "good", "--for", "llama.cpp", "--base", "it", "-o", "out.gguf"),
        ("adapt", "it"),
        ("experiment", "it"),
        ("train-adapter", "it"),
    ):
        assert f"{path.name}: is {kind} and no file" in refused(tmp_path, *arguments)
    assert "it" in refused(tmp_path, "generate", "x", "--model", "it")
    assert "it" in refused(tmp_path, "export", "good", "--for", "merged", "--base", "it", "-o", "out")
    assert "it" in refused(tmp_path, "report", "it")
    outcome = call(tmp_path, "check", "it")
    assert outcome.code == 2
    assert f"is {kind} and no file" in outcome.out


@pytest.mark.parametrize("file", [CONFIG, TENSORS])
def test_as_a_file_of_an_adapter(file: str, special: tuple[Path, str], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "adapter")
    (folder / file).unlink()
    (folder / file).symlink_to(special[0])
    for arguments in (("inspect", "adapter"), ("merge", "adapter", "-o", "out"), ("convert", "adapter", "--output", "out")):
        assert file in refused(tmp_path, *arguments)


def test_a_file_of_64_gigabytes_that_holds_nothing(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        with (tmp_path / f"data{suffix}").open("wb") as file:
            file.truncate(2**36)
        write_recipe(tmp_path / "it.yaml", {"data": {"train": f"data{suffix}"}, "sources": [{"name": "a", "adapter": "a"}]})
        assert f"data{suffix}: " in refused(tmp_path, "adapt", "it.yaml")
        with (tmp_path / f"data{suffix}").open("wb") as file:
            file.truncate(2**30)
        assert f"data{suffix}: " in refused(tmp_path, "adapt", "it.yaml")
    with (tmp_path / "recipe.yaml").open("wb") as file:
        file.truncate(2**36)
    assert "recipe.yaml" in refused(tmp_path, "adapt", "recipe.yaml")
    folder = write_folder(tmp_path / "adapter")
    with (folder / CONFIG).open("wb") as file:
        file.truncate(2**36)
    assert "has more than 67,108,864 bytes, which no config has" in refused(tmp_path, "inspect", "adapter")


def sparse_adapter(folder: Path, rows: int) -> None:
    """A sound adapter of one module, whose factors have so many rows and no byte on the disk."""
    write_folder(folder)
    keys = [f"base_model.model.{Q0}.lora_{side}.weight" for side in "AB"]
    size = rows * 4 * 4
    shapes = ([4, rows], [rows, 4])
    header = json.dumps(
        {key: {"dtype": "F32", "shape": shape, "data_offsets": [place * size, (place + 1) * size]}
         for place, (key, shape) in enumerate(zip(keys, shapes, strict=True))}
    ).encode()  # fmt: skip
    with (folder / TENSORS).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 2 * size)


def test_factors_larger_than_the_memory(tmp_path: Path) -> None:
    sparse_adapter(tmp_path / "adapter", rows=2**34)
    for arguments in (
        ("inspect", "adapter"),
        ("merge", "adapter", "-o", "out"),
        ("export", "adapter", "--for", "peft", "-o", "out"),
    ):
        line = refused(tmp_path, *arguments)
        assert "adapter_model.safetensors" in line
        assert "has 512.0 GiB, and this machine has" in line
    assert not (tmp_path / "out").exists()


def test_factors_larger_than_the_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_adapter(tmp_path / "adapter", rows=2**25)
    monkeypatch.setattr("pomona.adapters.tensors._available_bytes", lambda: 2**29)
    assert "needs 1.0 GiB of memory, and 512.0 MiB are available" in refused(tmp_path, "inspect", "adapter")
    monkeypatch.undo()
    monkeypatch.setattr("numpy.empty", mock.Mock(side_effect=MemoryError))
    assert "needs 1.0 GiB of memory, which this process does not get" in refused(tmp_path, "inspect", "adapter")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_modules", r"(.+)+b"),
        ("target_modules", r"((.*)*)*\.x"),
        ("exclude_modules", r"(.*a){25}x"),
        ("rank_pattern", {r"([a-z.0-9_]+)+x": 4}),
        ("alpha_pattern", {r"(a|a|.)*y": 4}),
        ("layers_pattern", [r"(.|\.)*(.|\.)*(.|\.)*layer"]),
    ],
)
def test_an_expression_that_backtracks(field: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    folder = write_folder(tmp_path / "adapter")
    module = LONG + ".self_attn.q_proj"
    named = {key.replace(Q0, module): tensor for key, tensor in peft_tensors().items()}
    save_file(named, folder / TENSORS)
    config = peft_config(target_modules=["q_proj", "v_proj"]) | {field: value}
    if field == "layers_pattern":
        config |= {"layers_to_transform": [0, 1]}
    (folder / CONFIG).write_text(json.dumps(config))
    line = refused(tmp_path, "inspect", "adapter")
    assert f"{CONFIG}: {field}: the expression takes more than 0.05 seconds on the names of" in line


def test_a_nested_repeat_that_ends_is_matched_as_python_does() -> None:
    names = ["model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj", "lm_head"]
    for expression in (r"(model|layers|\.|\d+)+\.self_attn\.(q|v)_proj", r"(?:[a-z]+\.)*(?:\d+\.)(?:\w+\.)*up_proj"):
        own = Expressions([expression, ".*"], "target_modules", full=True)
        assert own.prepare(names) == []
        expected, _ = match_names([expression, ".*"], names, full=True)
        assert [own.first(name) for name in names] == [hit and hit[0] for hit in expected]
        assert 0 in [own.first(name) for name in names]
        assert 1 in [own.first(name) for name in names]


def test_forty_thousand_modules_with_two_thousand_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    own = Expressions([rf"(.*\.)?(module{number}\.x)$" for number in range(2000)], "rank_pattern")
    with pytest.raises(
        InputError, match=r"rank_pattern: 2,000 expressions take more than 0.1 seconds on the names of 40,000 modules"
    ):
        own.prepare(f"model.layers.{number}.self_attn.q_proj" for number in range(40_000))


def test_an_expression_of_a_megabyte(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "adapter")
    for field in ("target_modules", "exclude_modules"):
        (folder / CONFIG).write_text(json.dumps(peft_config() | {field: "a|" * 500_000}))
        with pytest.raises(InputError, match=f"{field}: is not a regular expression of at most 10,000 characters"):
            read_adapter(folder)


def test_a_recipe_s_expression_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny import tiny_backbone

    from pomona.backbone.attach import target_paths

    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    with pytest.raises(InputError, match="target_modules: the expression takes more than"):
        target_paths(tiny_backbone(), r"(([a-z0-9_.])*)*x{2}")
    assert len(target_paths(tiny_backbone(), r".*\.(q|v)_proj")) == 4


def test_a_key_twice_in_a_config(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "adapter")
    (folder / CONFIG).write_text(json.dumps(peft_config())[:-1] + ', "r": 8}')
    assert f"{CONFIG}: is not JSON: the key 'r' is given twice" in refused(tmp_path, "inspect", "adapter")
