"""A checkpoint is one safetensors file: a state's tensors by name, other values as JSON in the header. Nothing is unpickled.

A checkpoint is written to a temporary file and renamed, so a kill at any moment leaves the last complete checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pomona.errors import InputError

_FIELD = "pomona"
_TENSOR = "$tensor"
"""The key of a JSON object that represents a tensor; its value is the tensor's name in the file."""


def save_checkpoint(path: Path, state: object) -> None:
    """Write a state atomically.

    Args:
        path: the file.
        state: dataclasses, mappings with string keys, sequences, tensors and JSON values, nested in any way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    tensors: dict[str, Tensor] = {}
    values = _without_tensors(state, "", tensors)
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        scratch,
        metadata={_FIELD: json.dumps(values)},
    )
    scratch.replace(path)


def load_checkpoint(path: Path, device: torch.device) -> Any:
    """The state that `save_checkpoint` wrote: mappings instead of dataclasses, lists instead of tuples, tensors on `device`.

    Raises:
        InputError: the file is not a checkpoint of this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})[_FIELD])
            return _with_tensors(values, {name: file.get_tensor(name).to(device) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError("not a checkpoint", file=path, fix="Delete it to start this part of the run again") from error


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
