"""Everything that evolves in a training run: a checkpoint holds a `TrainState`, and a resumed run needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from pomona.errors import InputError
from pomona.tuning.checkpoint import load_checkpoint, save_checkpoint
from pomona.tuning.settings import Event

T = TypeVar("T")

FORMAT = 5
"""Of a checkpoint's content. A checkpoint of another format is refused."""

HOLDS_TENSORS = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
"""For `__pydantic_config__` of a state that has tensors among its fields."""


@dataclass
class TrainState:
    """The state after an optimizer step.

    Args:
        step: optimizer steps taken.
        tokens: training tokens seen, padding excluded.
        stopped: whether patience has ended the run before its last step.
        train_seconds, probe_seconds: wall clock so far.
        history: every event so far, in order.
        factors: parameter name -> its values.
        optimizer: parameter name -> AdamW's moments and step counter.
        transforms: name of a transform -> its own state, of its own type.
        random: generator -> its state.
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
    """Write the state of the run that has this fingerprint, whole or not at all."""
    save_checkpoint(path, {"format": FORMAT, "fingerprint": fingerprint, "state": state})


def load_state(path: Path, fingerprint: Mapping[str, object], device: torch.device) -> TrainState:
    """The state that `save_state` wrote; the states of transforms as plain mappings (`typed` gives them their types).

    Raises:
        InputError: the file is not a checkpoint, or one of another run or of another format.
    """
    found = load_checkpoint(path, device)
    if not isinstance(found, dict) or (found.get("format"), found.get("fingerprint")) != (FORMAT, fingerprint):
        raise InputError(
            "this checkpoint belongs to another run, or to another version of Pomona",
            file=path,
            fix="Resume with the run's own recipe and version, or start anew",
        )
    return typed(TrainState, found["state"])


def typed(kind: type[T], values: object) -> T:
    """A state of a type, from the mappings and lists that a checkpoint gives back."""
    return TypeAdapter(kind).validate_python(values)


def random_state() -> dict[str, Tensor]:
    """The state of torch's global generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    return states | {f"cuda.{index}": torch.cuda.get_rng_state(index) for index in range(torch.cuda.device_count())}


def restore_random_state(states: Mapping[str, Tensor]) -> None:
    """Set torch's global generators to a state that `random_state` gave."""
    torch.set_rng_state(states["cpu"].cpu())
    for index in range(torch.cuda.device_count()):
        torch.cuda.set_rng_state(states[f"cuda.{index}"].cpu(), index)
