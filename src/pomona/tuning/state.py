"""The complete state of a training run: a checkpoint holds a `TrainState`, and a resumed run needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from pomona.errors import InputError
from pomona.tuning.checkpoint import AGAIN, load_checkpoint, save_checkpoint
from pomona.tuning.settings import Event

T = TypeVar("T")

FORMAT = 6
"""Version of a checkpoint's content. A checkpoint of another format is refused."""

HOLDS_TENSORS = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
"""The `__pydantic_config__` of a state with tensors."""


@dataclass
class TrainState:
    """The state after an optimizer step.

    Args:
        step: optimizer steps taken.
        tokens: training tokens seen, padding excluded.
        stopped: whether patience ended the run before its last step.
        train_seconds, probe_seconds: wall clock so far.
        history: every event so far, in order.
        factors: parameter name -> its values.
        optimizer: parameter name -> AdamW's moments and step counter.
        transforms: name of a transform -> its own state, of its own type.
        random: type of device -> the state of its generator, on rank 0.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    step: int = 0
    tokens: int = 0
    stopped: bool = False
    train_seconds: float = 0.0
    probe_seconds: float = 0.0
    history: list[Event] = field(default_factory=list)
    factors: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    transforms: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)


def save_state(path: Path, state: TrainState, fingerprint: Mapping[str, object]) -> None:
    """Write the state of the run with this fingerprint, atomically."""
    save_checkpoint(path, {"format": FORMAT, "fingerprint": fingerprint, "state": state})


def load_state(path: Path, fingerprint: Mapping[str, object], device: torch.device) -> TrainState:
    """The state that `save_state` wrote; the states of transforms are plain mappings (`typed` converts them).

    Raises:
        InputError: the file is not a checkpoint, or is from another run or of another format.
    """
    found = load_checkpoint(path, device)
    if not isinstance(found, dict) or (found.get("format"), found.get("fingerprint")) != (FORMAT, fingerprint):
        raise InputError(
            "this checkpoint belongs to another run, or to another version of Pomona",
            file=path,
            fix="Resume with the recipe and version of that run, or start a new run",
        )
    try:
        return typed(TrainState, found["state"])
    except (KeyError, ValueError) as error:
        raise InputError("does not hold a state of this run", file=path, fix=AGAIN) from error


def typed(kind: type[T], values: object) -> T:
    """A state of the given type, from the mappings and lists of a checkpoint."""
    return TypeAdapter(kind).validate_python(values)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's global generators that a run on this device draws dropout from, by type of device.

    Other devices of the machine take no part, so the run can be resumed with more of them, or with fewer.
    """
    states = {"cpu": torch.get_rng_state()}
    return states if device.type == "cpu" else states | {device.type: torch.get_device_module(device).get_rng_state(device)}


def restore_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set torch's global generators to the states of `random_state`; that of a device of another type remains as it is."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type].cpu(), device)
