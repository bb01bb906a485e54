"""Broken adapter folders: each is refused with one line that names the file, and exit code 2. None is ever unpickled."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.builders import Q0, peft_config, peft_tensors, write_folder

from pomona.adapters import check_finite, read_adapter
from pomona.errors import InputError

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
A_KEY, B_KEY = f"base_model.model.{Q0}.lora_A.weight", f"base_model.model.{Q0}.lora_B.weight"
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
    "only a pickle": (only_a_pickle, "adapter_model.bin", "never opened"),
    "config is not JSON": (config_bytes(b"{'r': 8}"), CONFIG, "is not JSON"),
    "config is empty": (config_bytes(b""), CONFIG, "is not JSON"),
    "config is cut": (config_bytes(json.dumps(peft_config()).encode()[:60]), CONFIG, "is not JSON"),
    "config is not UTF-8": (config_bytes(b'{"peft_type": "\xff\xfe"}'), CONFIG, "not UTF-8"),
    "config is a list": (config_bytes(b"[]"), CONFIG, "not a JSON object"),
    "config is nested too deep": (config_bytes(b"[" * 100_000), CONFIG, "is not JSON"),
    "another PEFT type": (config(peft_type="LOHA"), CONFIG, "peft_type: not a LoRA adapter (got 'LOHA')"),
    "no PEFT type": (config_without("peft_type"), CONFIG, "peft_type"),
    "DoRA": (config(use_dora=True), CONFIG, "use_dora"),
    "bias all": (config(bias="all"), CONFIG, "bias"),
    "lora_bias": (config(lora_bias=True), CONFIG, "lora_bias"),
    "modules_to_save": (config(modules_to_save=["lm_head"]), CONFIG, "modules_to_save"),
    "trainable tokens": (config(trainable_token_indices=[1, 2]), CONFIG, "trainable_token_indices"),
    "target parameters": (config(target_parameters=["experts.gate_up_proj"]), CONFIG, "target_parameters"),
    "PiSSA not converted": (config(init_lora_weights="pissa_niter_4"), CONFIG, "init_lora_weights"),
    "activated LoRA": (config(alora_invocation_tokens=[7]), CONFIG, "alora_invocation_tokens"),
    "no rank": (config_without("r"), CONFIG, "r: the rank"),
    "rank zero": (config(r=0), CONFIG, "r: the rank must be a whole number of at least 1 (got 0)"),
    "rank true": (config(r=True), CONFIG, "got True"),
    "rank as text": (config(r="8"), CONFIG, "got '8'"),
    "no alpha": (config_without("lora_alpha"), CONFIG, "lora_alpha"),
    "alpha NaN": (config(lora_alpha=float("nan")), CONFIG, "alpha must be a finite number (got nan)"),
    "rank pattern is a list": (config(rank_pattern=["q_proj"]), CONFIG, "rank_pattern"),
    "rank pattern with a bad number": (config(rank_pattern={"q_proj": -1}), CONFIG, "rank_pattern.q_proj"),
    "alpha pattern with a bad expression": (config(alpha_pattern={"(q_proj": 8}), CONFIG, "not a regular expression"),
    "base model is a number": (config(base_model_name_or_path=3), CONFIG, "base_model_name_or_path"),
    "rank contradicts the tensors": (config(r=8), TENSORS, "has rank 4, but adapter_config.json says 8"),
    "rank pattern contradicts the tensors": (config(rank_pattern={Q0: 2}), TENSORS, "has rank 4, but adapter_config.json says 2"),
    "tensors are empty": (lambda folder: (folder / TENSORS).write_bytes(b""), TENSORS, "not a sound safetensors file"),
    "tensors are text": (lambda folder: (folder / TENSORS).write_text("version https://git-lfs"), TENSORS, "not a sound"),
    "tensors are a pickle": (lambda folder: (folder / TENSORS).write_bytes(pickle.dumps(Bomb())), TENSORS, "not a sound"),
    "tensors are cut in the header": (cut(0.02), TENSORS, "not a sound"),
    "tensors are cut in the data": (cut(0.9), TENSORS, "not a sound"),
    "header length beyond the file": (raw_tensors(b"{}", length=2**40), TENSORS, "not a sound"),
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
    "embedding LoRA": (put("base_model.model.model.embed_tokens.lora_embedding_A", torch.ones(4, 9)), TENSORS, "embedding"),
    "a whole module": (put("base_model.model.lm_head.weight", torch.ones(9, 12)), TENSORS, "a weight of the model itself"),
    "key with an adapter's name": (
        put(f"base_model.model.{Q0}.lora_A.default.weight", torch.ones(4, 12)),
        TENSORS,
        "save_pretrained",
    ),
    "key without PEFT's prefix": (put(f"{Q0}.lora_A.weight", torch.ones(4, 12)), TENSORS, "save_pretrained"),
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


def test_adapter_in_a_named_subfolder_is_pointed_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "outer" / "default")
    with pytest.raises(InputError, match=r"outer: has no adapter_config\.json\. Give .*outer/default\."):
        read_adapter(tmp_path / "outer")
