"""Broken adapter folders: each is refused with one line that names the file, and exit code 2. None is ever unpickled."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.builders import Q0, embedding_tensors, peft_config, peft_tensors, write_folder
from typer.testing import CliRunner

from pomona.adapters import check_finite, read_adapter
from pomona.cli.main import app
from pomona.errors import InputError

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
A_KEY, B_KEY = f"base_model.model.{Q0}.lora_A.weight", f"base_model.model.{Q0}.lora_B.weight"
EMBEDDING = "base_model.model.model.embed_tokens"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
Break = Callable[[Path], object]


def config(**changes: object) -> Break:
    return lambda folder: Path(folder / CONFIG).write_text(json.dumps(peft_config(**changes)))


def config_without(field: str) -> Break:
    return lambda folder: Path(folder / CONFIG).write_text(json.dumps({k: v for k, v in peft_config().items() if k != field}))


def config_bytes(raw: bytes) -> Break:
    return lambda folder: Path(folder / CONFIG).write_bytes(raw)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Break:
    def broken(folder: Path) -> None:
        named = peft_tensors()
        change(named)
        save_file(named, folder / TENSORS)

    return broken


def put(key: str, tensor: torch.Tensor) -> Break:
    return tensors(lambda named: named.update({key: tensor}))


def value(number: float, key: str = A_KEY) -> Break:
    return tensors(lambda named: named[key].view(-1)[-1:].fill_(number))


def raw_tensors(header: bytes, body: bytes = b"", length: int | None = None) -> Break:
    size = struct.pack("<Q", len(header) if length is None else length)
    return lambda folder: Path(folder / TENSORS).write_bytes(size + header + body)


def entries(*named: tuple[str, str, list[int], list[int]]) -> bytes:
    return json.dumps({key: {"dtype": dtype, "shape": shape, "data_offsets": span} for key, dtype, shape, span in named}).encode()


def cut(keep: float) -> Break:
    def broken(folder: Path) -> None:
        whole = (folder / TENSORS).read_bytes()
        (folder / TENSORS).write_bytes(whole[: int(len(whole) * keep)])

    return broken


def only_a_pickle(folder: Path) -> None:
    (folder / TENSORS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))


def missing(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def a_folder_instead_of(name: str) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return broken


def a_link_to_itself(name: str) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / name)

    return broken


def a_header_of(length: int) -> Break:
    """A file with room for such a header, and nothing in it."""

    def broken(folder: Path) -> None:
        with (folder / TENSORS).open("wb") as file:
            file.write(struct.pack("<Q", length))
            file.truncate(8 + length)

    return broken


def with_embedding(targets: object = ("embed_tokens", "q_proj", "v_proj"), **changes: torch.Tensor) -> Break:
    """The folder with an embedding's factors and the copy beside them; `A`, `B` or `copy` in another shape."""
    keys = {"A": "lora_embedding_A", "B": "lora_embedding_B", "copy": "base_layer.weight"}

    def broken(folder: Path) -> None:
        config(target_modules=targets)(folder)
        changed = {f"{EMBEDDING}.{keys[name]}": tensor for name, tensor in changes.items()}
        tensors(lambda named: named.update({**embedding_tensors(), **changed}))(folder)

    return broken


def tensor_bytes(raw: bytes) -> Break:
    return lambda folder: (folder / TENSORS).write_bytes(raw)


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("raise AssertionError('unpickled')",)


TWICE = entries((A_KEY, "F32", [4, 12], [0, 192]))[:-1] + b"," + entries((A_KEY, "F32", [12, 4], [0, 192]))[1:]

# name -> (how the folder is broken, the file that the message must name, a part of the message)
BROKEN: dict[str, tuple[Break, str, str]] = {
    "no config": (missing(CONFIG), "", f"has no {CONFIG}"),
    "no tensors": (missing(TENSORS), "", f"has no {TENSORS}"),
    "config is a folder": (a_folder_instead_of(CONFIG), "", f"has no {CONFIG}"),
    "tensors are a folder": (a_folder_instead_of(TENSORS), "", f"has no {TENSORS}"),
    "only a pickle": (only_a_pickle, "adapter_model.bin", "never opened here. Where you trust it, convert it: pomona convert "),
    "config is a link to itself": (a_link_to_itself(CONFIG), "", f"has no {CONFIG}"),
    "tensors are a link to themselves": (a_link_to_itself(TENSORS), "", f"has no {TENSORS}"),
    "config is not JSON": (config_bytes(b"{'r': 8}"), CONFIG, "is not JSON"),
    "config is empty": (config_bytes(b""), CONFIG, "is empty"),
    "config is a Git LFS pointer": (
        config_bytes(POINTER),
        CONFIG,
        "is a Git LFS pointer and not the file itself. Run `git lfs pull`",
    ),
    "config is an HTML page": (config_bytes(b"<!DOCTYPE html><html>"), CONFIG, "is an HTML page, as a server sends it"),
    "config is of mlx-lm": (
        config_bytes(b'{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}, "num_layers": 16}'),
        CONFIG,
        "is the config of an mlx-lm adapter and not of PEFT",
    ),
    "config is cut": (config_bytes(json.dumps(peft_config()).encode()[:60]), CONFIG, "is not JSON"),
    "config is not UTF-8": (config_bytes(b'{"peft_type": "\xff\xfe"}'), CONFIG, "not UTF-8"),
    "config is a list": (config_bytes(b"[]"), CONFIG, "not a JSON object"),
    "config is nested too deep": (config_bytes(b"[" * 100_000), CONFIG, "is not JSON"),
    "another PEFT type": (config(peft_type="LOHA"), CONFIG, "peft_type: not a LoRA adapter (got 'LOHA')"),
    "no PEFT type": (config_without("peft_type"), CONFIG, "peft_type"),
    "DoRA": (config(use_dora=True), CONFIG, "use_dora"),
    "bias all": (config(bias="all"), CONFIG, "bias"),
    "lora_bias": (config(lora_bias=True), CONFIG, "lora_bias"),
    "modules_to_save": (config(modules_to_save=["lm_head"]), CONFIG, "modules_to_save: names lm_head, of which adapter_model"),
    "modules_to_save as text": (config(modules_to_save="lm_head"), CONFIG, "modules_to_save: is not a list of module names"),
    "trainable tokens": (config(trainable_token_indices=[1, 2]), CONFIG, "trainable_token_indices"),
    "target parameters": (config(target_parameters="experts.gate_up_proj"), CONFIG, "target_parameters"),
    "PiSSA not converted": (config(init_lora_weights="pissa_niter_4"), CONFIG, "init_lora_weights"),
    "activated LoRA": (config(alora_invocation_tokens=[7]), CONFIG, "alora_invocation_tokens"),
    "no rank, and another than PEFT's": (
        config_without("r"),
        TENSORS,
        "has rank 4, but adapter_config.json has no r, for which PEFT",
    ),
    "rank zero": (config(r=0), CONFIG, "r: the rank must be a whole number from 1 to 1000000 (got 0)"),
    "rank true": (config(r=True), CONFIG, "got True"),
    "rank as text": (config(r="8"), CONFIG, "got '8'"),
    "rank null": (config(r=None), CONFIG, "r: the rank must be a whole number from 1 to 1000000 (got None)"),
    "alpha null": (config(lora_alpha=None), CONFIG, "lora_alpha: alpha must be a finite number (got None)"),
    "task type is a number": (config(task_type=3), CONFIG, "task_type: must be text"),
    "revision is a number": (config(revision=3), CONFIG, "revision: must be text"),
    "alpha NaN": (config(lora_alpha=float("nan")), CONFIG, "alpha must be a finite number (got nan)"),
    "rank as a fraction": (config(r=4.0), CONFIG, "r: the rank must be a whole number from 1 to 1000000 (got 4.0)"),
    "rank without end": (config(r=10**400), CONFIG, "r: the rank must be a whole number"),
    "rank infinite": (config_bytes(b'{"peft_type": "LORA", "r": 1e999, "lora_alpha": 8}'), CONFIG, "r: the rank"),
    "rank of too many digits": (config_bytes(b'{"r": ' + b"1" * 5000 + b"}"), CONFIG, "is not JSON"),
    "alpha as text": (config(lora_alpha="16"), CONFIG, "lora_alpha: alpha must be a finite number (got '16')"),
    "alpha true": (config(lora_alpha=True), CONFIG, "alpha must be a finite number"),
    "alpha infinite": (config(lora_alpha=float("-inf")), CONFIG, "alpha must be a finite number (got -inf)"),
    "alpha without end": (config(lora_alpha=10**400), CONFIG, "alpha must be a finite number"),
    "alpha beyond fp32": (config(lora_alpha=1e39), CONFIG, "alpha must be a finite number"),
    "config is a huge number": (config_bytes(b"1e999"), CONFIG, "is not a JSON object (got inf)"),
    "config is NaN": (config_bytes(b"NaN"), CONFIG, "is not a JSON object (got nan)"),
    "config is null": (config_bytes(b"null"), CONFIG, "is not a JSON object"),
    "config with half a character": (config(base_model_name_or_path="\ud800"), CONFIG, "not UTF-8"),
    "base model with a terminal's escape": (config(base_model_name_or_path="\x1b[31m"), CONFIG, r"must be text (got '\x1b[31m')"),
    "rsLoRA as text": (config(use_rslora="false"), CONFIG, "use_rslora: must be true or false (got 'false')"),
    "fan_in_fan_out as a number": (config(fan_in_fan_out=1), CONFIG, "fan_in_fan_out: must be true or false (got 1)"),
    "rank pattern is an empty list": (config(rank_pattern=[]), CONFIG, "rank_pattern: is not a map"),
    "rank pattern with nothing": (config(rank_pattern={"q_proj": None}), CONFIG, "rank_pattern.q_proj: the rank"),
    "alpha pattern is text": (config(alpha_pattern="q_proj"), CONFIG, "alpha_pattern: is not a map"),
    "alpha pattern with NaN": (config(alpha_pattern={"q_proj": float("nan")}), CONFIG, "alpha_pattern.q_proj: alpha must be"),
    "pattern that repeats too often": (config(rank_pattern={"q{99999999999}": 4}), CONFIG, "is not a regular expression"),
    "pattern nested too deep": (config(rank_pattern={"(" * 9999 + ")" * 9999: 4}), CONFIG, "is not a regular expression"),
    "target modules are a number": (config(target_modules=7), CONFIG, "target_modules: is neither a list"),
    "target modules are a map": (config(target_modules={"q_proj": 1}), CONFIG, "target_modules: is neither a list"),
    "target modules with a number": (config(target_modules=["q_proj", 1]), CONFIG, "target_modules: is neither a list"),
    "target modules with a bad expression": (
        config(target_modules="(q_proj"),
        CONFIG,
        "target_modules: is not a regular expression",
    ),
    "excluded modules with a bad expression": (config(exclude_modules="*"), CONFIG, "exclude_modules: is not a regular expression"),
    "layers as text": (config(layers_to_transform="all"), CONFIG, "layers_to_transform: is not a list of layer numbers"),
    "layers with text": (config(layers_to_transform=[0, "1"]), CONFIG, "layers_to_transform: is not a list of layer numbers"),
    "layer pattern with a bad expression": (config(layers_pattern=["("]), CONFIG, "layers_pattern: is not a regular expression"),
    "layer pattern is a number": (config(layers_pattern=3), CONFIG, "layers_pattern: is not a list of names"),
    "target modules leave a module out": (config(target_modules=["v_proj"]), CONFIG, f"target_modules: leaves out {Q0}, whose"),
    "target modules are none": (config(target_modules=[]), CONFIG, f"target_modules: leaves out {Q0}"),
    "target modules as text that is no path": (config(target_modules="q_proj"), CONFIG, f"target_modules: leaves out {Q0}"),
    "target expression leaves a module out": (config(target_modules=r".*\.1\..*"), CONFIG, f"target_modules: leaves out {Q0}"),
    "excluded modules with factors": (config(exclude_modules=["self_attn.q_proj"]), CONFIG, f"exclude_modules: leaves out {Q0}"),
    "layers leave a module out": (config(layers_to_transform=[1]), CONFIG, f"layers_to_transform: leaves out {Q0}"),
    "one layer leaves a module out": (config(layers_to_transform=1), CONFIG, f"layers_to_transform: leaves out {Q0}"),
    "rank pattern is a list": (config(rank_pattern=["q_proj"]), CONFIG, "rank_pattern"),
    "rank pattern with a bad number": (config(rank_pattern={"q_proj": -1}), CONFIG, "rank_pattern.q_proj"),
    "alpha pattern with a bad expression": (config(alpha_pattern={"(q_proj": 8}), CONFIG, "not a regular expression"),
    "base model is a number": (config(base_model_name_or_path=3), CONFIG, "base_model_name_or_path"),
    "rank contradicts the tensors": (config(r=8), TENSORS, "has rank 4, but adapter_config.json says 8"),
    "rank pattern contradicts the tensors": (config(rank_pattern={Q0: 2}), TENSORS, "has rank 4, but adapter_config.json says 2"),
    "tensors are empty": (tensor_bytes(b""), TENSORS, "is empty"),
    "tensors are text": (tensor_bytes(b"no tensors at all"), TENSORS, "not a sound safetensors file"),
    "tensors are a Git LFS pointer": (tensor_bytes(POINTER), TENSORS, "is a Git LFS pointer and not the file itself. Run `git lfs"),
    "tensors are an HTML page": (tensor_bytes(b"\n<html lang=en><title>404</title>"), TENSORS, "is an HTML page, as a server"),
    "tensors are an XML page": (tensor_bytes(b'<?xml version="1.0"?><Error>'), TENSORS, "is an XML page, as a server"),
    "tensors are GGUF": (tensor_bytes(b"GGUF\x03\0\0\0"), TENSORS, "is a GGUF file, the format of llama.cpp"),
    "tensors are a pickle": (tensor_bytes(pickle.dumps(Bomb())), TENSORS, "is a pickle or an archive of pickles"),
    "tensors are of torch.save": (tensor_bytes(b"PK\x03\x04" + bytes(99)), TENSORS, "which can run code and is never opened"),
    "mlx-lm's factors": (
        tensors(lambda named: (named.clear(), named.update({f"{Q0}.lora_a": torch.ones(12, 4)}))),
        TENSORS,
        "a factor of mlx-lm, which is transposed. Convert",
    ),
    "tensors are cut in the header": (cut(0.02), TENSORS, "not a sound"),
    "tensors are cut in the data": (cut(0.9), TENSORS, "not a sound safetensors file: it has 2,"),
    "header length beyond the file": (raw_tensors(b"{}", length=2**40), TENSORS, "not a sound"),
    "header beyond what the format allows": (a_header_of(2**28), TENSORS, "not a sound"),
    "header of no bytes": (raw_tensors(b""), TENSORS, "not a sound"),
    "header with negative offsets": (
        raw_tensors(entries((A_KEY, "F32", [4, 12], [-192, 0])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header with offsets beyond the file": (
        raw_tensors(entries((A_KEY, "F32", [4, 12], [2**62, 2**62 + 192])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header with offsets beyond 64 bits": (
        raw_tensors(entries((A_KEY, "F32", [4, 12], [2**64, 2**64 + 192])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header with a shape beyond 64 bits": (
        raw_tensors(entries((A_KEY, "F32", [2**40, 2**40], [0, 192])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header with offsets turned": (
        raw_tensors(entries((A_KEY, "F32", [4, 12], [192, 0])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header is not UTF-8": (raw_tensors(b'{"\xff": 1}'), TENSORS, "not a sound"),
    "header is a list": (raw_tensors(b"[1]"), TENSORS, "not a sound"),
    "header with a negative shape": (raw_tensors(entries((A_KEY, "F32", [-4, 12], [0, 192])), bytes(192)), TENSORS, "not a sound"),
    "header with overlapping tensors": (
        raw_tensors(entries((A_KEY, "F32", [4, 12], [0, 192]), (B_KEY, "F32", [12, 4], [0, 192])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header with a shape beyond its span": (
        raw_tensors(entries((A_KEY, "F32", [9, 12], [0, 192])), bytes(192)),
        TENSORS,
        "not a sound",
    ),
    "header with a gap": (
        raw_tensors(entries((A_KEY, "F32", [4, 12], [0, 192]), (B_KEY, "F32", [12, 4], [200, 392])), bytes(392)),
        TENSORS,
        "not a sound",
    ),
    "header with an unknown dtype": (raw_tensors(entries((A_KEY, "Q4", [4, 12], [0, 192])), bytes(192)), TENSORS, "not a sound"),
    "header that names a tensor twice": (raw_tensors(TWICE, bytes(192)), TENSORS, "has an entry twice"),
    "data behind the last tensor": (raw_tensors(entries((A_KEY, "F32", [4, 12], [0, 192])), bytes(500)), TENSORS, "not a sound"),
    "no tensors inside": (tensors(dict.clear), TENSORS, "holds no LoRA tensors"),
    "A without B": (tensors(lambda named: named.pop(B_KEY)), TENSORS, f"{Q0}: has lora_A but no lora_B"),
    "B without A": (tensors(lambda named: named.pop(A_KEY)), TENSORS, f"{Q0}: has lora_B but no lora_A"),
    "A and B of two ranks": (put(B_KEY, torch.zeros(20, 3)), TENSORS, "lora_A (4, 12) and lora_B (20, 3)"),
    "A transposed": (put(A_KEY, torch.zeros(12, 4)), TENSORS, "are not [r, in] and [out, r]"),
    "A is a vector": (put(A_KEY, torch.zeros(48)), TENSORS, "is not a matrix"),
    "A is a convolution": (put(A_KEY, torch.zeros(4, 12, 3, 3)), TENSORS, "is not a matrix"),
    "A is empty": (put(A_KEY, torch.zeros(4, 0)), TENSORS, "is not a matrix"),
    "whole numbers": (put(A_KEY, torch.zeros(4, 12, dtype=torch.int32)), TENSORS, "got 'I32'"),
    "eight-bit floats": (put(A_KEY, torch.zeros(4, 12).to(torch.float8_e4m3fn)), TENSORS, "got 'F8_E4M3'"),
    "DoRA magnitude": (put(f"base_model.model.{Q0}.lora_magnitude_vector", torch.ones(20)), TENSORS, "DoRA magnitude"),
    "bias of lora_B": (put(f"base_model.model.{Q0}.lora_B.bias", torch.ones(20)), TENSORS, "bias of lora_B"),
    "embedding without B": (put(f"{EMBEDDING}.lora_embedding_A", torch.ones(4, 9)), TENSORS, "has lora_embedding_A but no"),
    "embedding without A": (put(f"{EMBEDDING}.lora_embedding_B", torch.ones(9, 4)), TENSORS, "has lora_embedding_B but no"),
    "embedding transposed": (with_embedding(A=torch.ones(30, 4)), TENSORS, "lora_embedding_A (30, 4) and lora_embedding_B (12, 4)"),
    "embedding of another rank": (with_embedding(A=torch.ones(3, 30), B=torch.ones(12, 3)), TENSORS, "has rank 3, but"),
    "embedding that target_modules leaves out": (
        with_embedding(["q_proj", "v_proj"]),
        CONFIG,
        "target_modules: leaves out model.embed_tokens",
    ),
    "embedding under all-linear": (with_embedding("all-linear"), CONFIG, "target_modules: leaves out model.embed_tokens"),
    "embedding and linear factors for one module": (
        put(f"base_model.model.{Q0}.lora_embedding_A", torch.ones(4, 12)),
        TENSORS,
        f"{Q0}: has the factors of a linear module and of an embedding",
    ),
    "embedding with .weight": (put(f"{EMBEDDING}.lora_embedding_A.weight", torch.ones(4, 9)), TENSORS, "is no lora_A.weight"),
    "copy of an embedding with more tokens": (
        with_embedding(copy=torch.ones(34, 12)),
        TENSORS,
        "the copied weight is not 30 x 12 as the factors are (got (34, 12))",
    ),
    "copy of an embedding that is not adapted": (
        put(f"{EMBEDDING}.base_layer.weight", torch.ones(30, 12)),
        TENSORS,
        "a weight of the model itself",
    ),
    "copy of a layer's weight": (
        put(f"base_model.model.{Q0}.base_layer.weight", torch.ones(20, 12)),
        TENSORS,
        "a weight of the model itself",
    ),
    "a whole embedding of whole numbers": (
        put(f"{EMBEDDING}.weight", torch.ones(30, 12, dtype=torch.int32)),
        TENSORS,
        "has a dtype that is not fp32, fp16 or bf16 (got 'I32')",
    ),
    "a whole tensor with another prefix": (
        put("lm_head.weight", torch.ones(30, 12)),
        TENSORS,
        "lm_head.weight: starts with '', but base_model.model.",
    ),
    "a bias beside factors": (put(f"base_model.model.{Q0}.bias", torch.ones(20)), TENSORS, "of a module that has factors too"),
    "a prompt's embeddings": (put("prompt_embeddings", torch.ones(3, 12)), TENSORS, "neither a LoRA factor nor a weight"),
    "NaN in a whole tensor": (
        put("base_model.model.lm_head.weight", torch.full((9, 12), float("nan"))),
        TENSORS,
        "base_model.model.lm_head.weight: holds NaN",
    ),
    "a sampler's tensor": (
        put(f"base_model.model.{Q0}.lora_monteclora_sampler.loc", torch.ones(4)),
        TENSORS,
        "a tensor that is no lora_A.weight",
    ),
    "one factor of a compiled model": (
        put(f"base_model.model._orig_mod.{Q0}.lora_A.weight", torch.ones(4, 12)),
        TENSORS,
        "PEFT would apply one kind only",
    ),
    "one factor twice": (
        put(A_KEY.replace("self_attn", "_orig_mod.self_attn"), torch.ones(4, 12)),
        TENSORS,
        f"is the same factor as base_model.model.{Q0.partition('self')[0]}",
    ),
    "two prefixes": (
        put(f"base_model.model.{A_KEY}", torch.ones(4, 12)),
        TENSORS,
        "'base_model.model.base_model.model.'",
    ),
    "two adapters": (
        put(A_KEY.replace("lora_A", "lora_A.german"), torch.ones(4, 12)),
        TENSORS,
        "holds the factors of several adapters, 'german' and 'without a name'",
    ),
    "factors of factors": (
        put(f"base_model.model.{Q0}.lora_A.default.lora_A.weight", torch.ones(4, 12)),
        TENSORS,
        "a tensor that is no lora_A.weight",
    ),
    "half of PEFT's prefix": (put("base_model.h.0.attn.lora_A.weight", torch.ones(4, 12)), TENSORS, "a tensor that is no lora_A"),
    "a second spelling of a layer": (
        put(A_KEY.replace("layers.0", "layers.00"), torch.ones(4, 12)),
        TENSORS,
        "a tensor's name is none that torch gives",
    ),
    "an empty part of a path": (put(A_KEY.replace("layers.0", "layers..0"), torch.ones(4, 12)), TENSORS, "none that torch gives"),
    "a space in a path": (put(A_KEY.replace("layers.0", "layers. 0"), torch.ones(4, 12)), TENSORS, "none that torch gives"),
    "a terminal's escape in a path": (put(A_KEY.replace("layers", "\x1b[31m"), torch.ones(4, 12)), TENSORS, r"\x1b[31m"),
    "a line break in a path": (put(A_KEY.replace("layers", "lay\ners"), torch.ones(4, 12)), TENSORS, "none that torch gives"),
    "a path without end": (put(A_KEY.replace("layers", "l" * 9999), torch.ones(4, 12)), TENSORS, "none that torch gives"),
    "NaN": (value(float("nan")), TENSORS, f"{A_KEY}: holds NaN or infinite values"),
    "infinity": (value(float("inf"), B_KEY), TENSORS, f"{B_KEY}: holds NaN or infinite values"),
    "minus infinity": (value(float("-inf"), B_KEY), TENSORS, "holds NaN or infinite values"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refused_in_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    break_it, file, part = BROKEN[name]
    folder = write_folder(tmp_path / "adapter")
    break_it(folder)
    with pytest.raises(InputError) as caught:
        check_finite(read_adapter(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder / file}: "), message
    assert part in message
    assert "\n" not in message
    assert len(message) < 600
    assert caught.value.exit_code == 2


def test_the_unbroken_folder_is_read(tmp_path: Path) -> None:
    check_finite(read_adapter(write_folder(tmp_path / "adapter")))


def test_missing_folder_and_file_given_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_adapter(tmp_path / "nowhere")
    folder = write_folder(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"is a file\. Give the folder"):
        read_adapter(folder / TENSORS)


def test_the_whole_folder_with_an_embedding_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "adapter")
    with_embedding()(folder)
    assert len(read_adapter(folder)) == 5


def test_a_link_to_itself_and_a_name_that_no_file_has(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="loop: no such folder"):
        read_adapter(tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        read_adapter(tmp_path / ("n" * 5000))


@pytest.mark.parametrize("call", ["pathlib.Path.open", "os.open", "pathlib.Path.iterdir"])
def test_what_the_disk_refuses(call: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "outer" / "adapter")
    with mock.patch(call, side_effect=PermissionError(13, "Permission denied")), pytest.raises(InputError) as caught:
        read_adapter(folder if call != "pathlib.Path.iterdir" else folder.parent)
    assert "cannot be read: Permission denied" in str(caught.value)


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", BROKEN)
def test_merge_exits_with_two_and_writes_nothing(name: str, tmp_path: Path) -> None:
    break_it, file, part = BROKEN[name]
    folder, good = write_folder(tmp_path / "adapter"), write_folder(tmp_path / "good")
    break_it(folder)
    before = listing(tmp_path)
    result = CliRunner().invoke(app, ["merge", str(good), str(folder), "--output", str(tmp_path / "out" / "merged")])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {folder / file}: ")
    assert part in line
    assert listing(tmp_path) == before


def test_as_a_process(tmp_path: Path) -> None:
    """The whole way, with nothing of this process in between."""
    folder, good = write_folder(tmp_path / "adapter"), write_folder(tmp_path / "good")
    value(float("nan"))(folder)  # found only when the values are read, while the output is being made
    before = listing(tmp_path)
    command = [sys.executable, "-m", "pomona.cli.main", "merge", str(good), str(folder), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {folder / TENSORS}: {A_KEY}: holds NaN or infinite values")
    assert listing(tmp_path) == before
