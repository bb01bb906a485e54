"""The history of a run, and what a step leaves on the device to be read: its loss, and values that must be finite.

A read waits for the device, and a GPU that is waited for has nothing to do until the next step is launched. So on an accelerator
the values of several steps are read together, and the events wait for them. On a CPU nothing waits: every event is added at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pomona.errors import PomonaError
from pomona.tuning.settings import Event

READ_STEPS = 10
"""Optimizer steps whose values are read together on an accelerator: few enough for the progress bar, and for a loss that is not
finite to end the run soon; enough that the wait does not count."""


class _Check(NamedTuple):
    """A value that must be finite, and its place in the run."""

    name: str
    step: int


@dataclass(eq=False)
class Log:
    """Adds events in order, those of steps when their losses are read.

    Args:
        system: name in messages.
        add: adds an event to the history.
        read_steps: optimizer steps whose values are read together, >= 1.
    """

    system: str
    add: Callable[[Event], None]
    read_steps: int
    latest_loss: float | None = None
    """Of the latest step that was read."""
    _waiting: list[Event | _Check] = field(default_factory=list, init=False)
    _values: list[Tensor] = field(default_factory=list, init=False)
    """The value of each check and of each event's loss that waits, in order."""

    @classmethod
    def on(cls, device: torch.device, system: str, add: Callable[[Event], None]) -> Log:
        """The log of a run on a device."""
        return cls(system, add, 1 if device.type == "cpu" else READ_STEPS)

    def finite(self, values: Mapping[str, Tensor], step: int) -> None:
        """Values that must be finite after so many steps, by their names in messages: of tensors without axes.

        Raises:
            PomonaError: one is not, and values are read at once; else `read` raises it.
        """
        self._waiting += [_Check(name, step) for name in values]
        self._values += values.values()
        if self.read_steps == 1:
            self.read()

    def step(self, event: Event, loss: Tensor) -> None:
        """Add the event of an optimizer step; its `loss` is the value of a tensor without axes."""
        self._waiting.append(event)
        self._values.append(loss)
        if sum(isinstance(one, dict) for one in self._waiting) >= self.read_steps:
            self.read()

    def tell(self, event: Event) -> None:
        """Add any other event, after those of the steps before it."""
        self.read()
        self.add(event)

    def read(self) -> None:
        """Read what waits, and add its events.

        Raises:
            PomonaError: a value that must be finite is not; the events before it are added.
        """
        if not self._waiting:
            return
        waiting, values = self._waiting, torch.stack([value.detach().float() for value in self._values]).tolist()
        self._waiting, self._values = [], []
        for one, value in zip(waiting, values, strict=True):
            if isinstance(one, _Check):
                check_finite(one.name, value, self.system, one.step)
            else:
                self.latest_loss = value
                self.add({key: value if key == "loss" else kept for key, kept in one.items()})


def check_finite(name: str, value: float, system: str, steps: int) -> None:
    """Refuse a value that is NaN or infinite.

    Raises:
        PomonaError: the value is not finite.
    """
    if not math.isfinite(value):
        raise PomonaError(
            f"the {name} of {system} is not finite after {steps} steps",
            value=value,
            fix="Lower tuning.learning_rate, or train with dtype float32",
        )
