"""A base that bitsandbytes quantised, written again as a plain model folder, one matrix in memory at a time.

4-bit weights are two codes a byte, the first in the upper half. A code is looked up in `quant_map` and multiplied by the scale
(`absmax`) of its block; with double quantisation the scales are codes too. 8-bit weights are int8 times the scale of their row
(`SCB`) over 127. The values are those that transformers computes with, in the dtype that it computes in.

Axes: O output features, I input features, N codes, B blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.config import read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.checkpoint import INDEX, Checkpoint, Stored, read_checkpoint
from pomona.adapters.quantised import refuse_without_codes
from pomona.adapters.tensors import DTYPES, bytes_of, write_safetensors
from pomona.errors import InputError

_STATE, _SCALE_8BIT, _FORMAT_8BIT = ".quant_state.bitsandbytes__", ".SCB", ".weight_format"
_PARTS_4BIT = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_KINDS = {**DTYPES, "U8": torch.uint8, "I8": torch.int8}
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_AGAIN = "Save the quantised model again with transformers' save_pretrained"


@dataclass(frozen=True)
class _Weight:
    """A weight as it will be written: as it is where `state` is None; else from codes of 4 bits, or of 8 if it is empty."""

    stored: Stored
    dtype: str
    shape: tuple[int, ...]
    state: Mapping[str, object] | None = None

    def layout(self) -> tuple[str, tuple[int, ...], int]:
        if self.state is None:
            return self.dtype, self.shape, self.stored.nbytes
        return self.dtype, self.shape, torch.Size(self.shape).numel() * DTYPES[self.dtype].itemsize


def write_dequantised(base: Path, folder: Path) -> None:
    """Write the weights and the `config.json` of a base without quantisation.

    Args:
        base: a folder whose config says that bitsandbytes quantised it.
        folder: an empty folder.

    Raises:
        InputError: the files are not sound, or hold codes without the scales that belong to them.
    """
    config = read_json_object(base / CONFIG)
    checkpoint = read_checkpoint(base)
    refuse_without_codes(checkpoint, base / CONFIG)
    files: dict[str, dict[str, _Weight]] = {}
    for name, weight in _weights(checkpoint, str(config.get("dtype") or config.get("torch_dtype") or "float32")).items():
        files.setdefault(weight.stored.file.name, {})[name] = weight
    for file, weights in files.items():
        layout = {name: weight.layout() for name, weight in weights.items()}
        write_safetensors(folder / file, layout, checkpoint.metadata[file], _bytes(checkpoint, weights))
    if checkpoint.sharded:
        index = {"metadata": {}, "weight_map": {name: file for file, weights in files.items() for name in weights}}
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(_plain(config), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _plain(config: Mapping[str, object]) -> dict[str, object]:
    left = {name: value for name, value in config.items() if name != "quantization_config"}
    return {name: _plain(value) if name == "text_config" and isinstance(value, dict) else value for name, value in left.items()}


def _weights(checkpoint: Checkpoint, dtype: str) -> dict[str, _Weight]:
    """The tensors of the plain model, in the files' order; scales and states are part of their weights."""
    states = {name.partition(_STATE)[0]: name for name in checkpoint.tensors if _STATE in name}
    parts = {f"{weight}{part}" for weight in states for part in _PARTS_4BIT}
    found: dict[str, _Weight] = {}
    for name, stored in checkpoint.tensors.items():
        if _STATE in name or name.endswith(_FORMAT_8BIT) or name in parts:
            continue
        if name in states:
            state = json.loads(bytes(_read(checkpoint, states[name]).tolist()).decode("utf-8"))
            found[name] = _Weight(stored, _NAMES[str(state["dtype"])], tuple(state["shape"]), state)
        elif stored.dtype == "I8":
            found[name] = _Weight(stored, _NAMES.get(dtype, "F32"), stored.shape, {})
        elif not (name.endswith(_SCALE_8BIT) and f"{name.removesuffix(_SCALE_8BIT)}.weight" in checkpoint.tensors):
            found[name] = _Weight(stored, stored.dtype, stored.shape)
    return found


def _bytes(checkpoint: Checkpoint, weights: Mapping[str, _Weight]) -> Iterator[bytes | memoryview]:
    for name, weight in weights.items():
        if weight.state is None:
            yield from weight.stored.pieces()
        else:
            whole = _from_4_bits(checkpoint, name, weight.state) if weight.state else _from_8_bits(checkpoint, name)
            yield bytes_of(whole.to(DTYPES[weight.dtype]))


def _from_8_bits(checkpoint: Checkpoint, name: str) -> Float[Tensor, "O I"]:
    scale_O = _read(checkpoint, f"{name.removesuffix('.weight')}{_SCALE_8BIT}").float()
    return _read(checkpoint, name).float() * (scale_O[:, None] / 127)


def _from_4_bits(checkpoint: Checkpoint, name: str, state: Mapping[str, object]) -> Float[Tensor, "O I"]:
    scale_B = _read(checkpoint, f"{name}.absmax")
    if "nested_blocksize" in state:
        codes_B, nested = scale_B.long(), int(str(state["nested_blocksize"]))
        of_scales = _read(checkpoint, f"{name}.nested_absmax").repeat_interleave(nested)[: len(codes_B)]
        scale_B = _read(checkpoint, f"{name}.nested_quant_map")[codes_B] * of_scales + float(str(state["nested_offset"]))
    bytes_N2 = _read(checkpoint, name).flatten().long()
    codes_N = torch.stack([bytes_N2 >> 4, bytes_N2 & 0xF], dim=1).flatten()
    shape = torch.Size(state["shape"])  # pyright: ignore[reportArgumentType]
    values_N = _read(checkpoint, f"{name}.quant_map")[codes_N[: shape.numel()]]
    return (values_N * scale_B.repeat_interleave(int(str(state["blocksize"])))[: shape.numel()]).view(shape)


def _read(checkpoint: Checkpoint, name: str) -> Tensor:
    stored = checkpoint.tensors.get(name)
    if stored is None or stored.dtype not in _KINDS:
        raise InputError("this part of its codes is not there", file=checkpoint.folder, field=name, fix=_AGAIN)
    data = bytearray(b"".join(stored.pieces()))
    return torch.frombuffer(data, dtype=_KINDS[stored.dtype]).view(stored.shape)
