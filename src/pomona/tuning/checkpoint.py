"""A checkpoint is one safetensors file: a state's tensors by name, other values as JSON in the header. Nothing is unpickled.

A checkpoint is written whole or not at all, so a kill at any moment leaves the last complete checkpoint. It holds a digest of
itself, so that a resumed run goes on from what was saved or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pomona.errors import InputError, PomonaError
from pomona.whole_files import whole_file

_FIELD, _DIGEST = "pomona", "sha256"
_TENSOR = "$tensor"
"""The key of a JSON object that represents a tensor; its value is the tensor's name in the file."""
AGAIN = "Delete it to start this part of the run again"
"""How to go on with a run whose checkpoint cannot be used."""


def save_checkpoint(path: Path, state: object) -> None:
    """Write a state atomically.

    Args:
        path: the file.
        state: dataclasses, mappings with string keys, sequences, tensors and JSON values, nested in any way.
    """
    tensors: dict[str, Tensor] = {}
    values = _without_tensors(state, "", tensors)
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as scratch:
        try:
            save_file(held, scratch, metadata={_FIELD: text, _DIGEST: _digest(text, held)})
        except SafetensorError as error:  # of the disk: the tensors are plain
            raise PomonaError(f"cannot be written: {error}", file=path) from error


def load_checkpoint(path: Path, device: torch.device) -> Any:
    """The state that `save_checkpoint` wrote: mappings instead of dataclasses, lists instead of tuples, tensors on `device`.

    Raises:
        InputError: the file is not a checkpoint of this program, or not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text, known = metadata[_FIELD], metadata[_DIGEST]
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = json.loads(text)
        if known != _digest(text, held):
            raise InputError("is not as it was written", file=path, fix=AGAIN)
        return _with_tensors(values, {name: tensor.to(device) for name, tensor in held.items()})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError("not a checkpoint", file=path, fix=AGAIN) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the values and of the tensors' names, shapes, dtypes and bytes."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"|{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> object:
    """The value in JSON's types; its tensors are added to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _without_tensors(one, f"{name}/{key}" if name else key, tensors) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(one, f"{name}/{place}", tensors) for place, one in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_without_tensors`, except for the types of containers."""
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(one, tensors) for key, one in value.items()}
    return [_with_tensors(one, tensors) for one in value] if isinstance(value, list) else value
