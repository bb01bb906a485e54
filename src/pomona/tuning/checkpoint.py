"""A checkpoint is one safetensors file: tensors by name, everything else as JSON in its header. Nothing is ever unpickled.

It is written beside its place and renamed, so a kill at any moment leaves the last whole one.
"""

from __future__ import annotations

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


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, object]) -> None:
    """Write tensors and JSON values, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        scratch,
        metadata={_FIELD: json.dumps(values)},
    )
    scratch.replace(path)


def load_checkpoint(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        InputError: the file is not a checkpoint of this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
            values = json.loads((file.metadata() or {})[_FIELD])
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError("not a checkpoint", file=path, mend="Delete it to start this part of the run again") from error
    return tensors, values


def random_state() -> dict[str, Tensor]:
    """The state of torch's global generators, which dropout draws from."""
    states = {"random.cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count()):
        states[f"random.cuda.{index}"] = torch.cuda.get_rng_state(index)
    return states


def restore_random_state(tensors: Mapping[str, Tensor]) -> None:
    """Put torch's global generators back to where `random_state` found them."""
    torch.set_rng_state(tensors["random.cpu"].cpu())
    for index in range(torch.cuda.device_count()):
        torch.cuda.set_rng_state(tensors[f"random.cuda.{index}"].cpu(), index)
