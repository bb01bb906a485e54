"""What `accelerate launch` asks for beside processes: mixed precision, and a frozen model that is sharded over the devices.

It asks by environment variables, which other launchers can set too. The library itself is not needed in the processes: autocast and
`fully_shard` are torch's, and gradients and statistics are summed here (docs/adr/0053).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from pomona.engines.base import Engine
from pomona.engines.native import Native
from pomona.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

PRECISION, SHARDED = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP"
_OTHERS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG")


@dataclass(frozen=True)
class Accelerate(Native):
    """The native engine with the launcher's wishes.

    Args:
        precision: `bf16`: activations of forward passes are in bfloat16, as torch's autocast has it. The factors, their updates
            and all statistics stay in float32. None: no cast.
        sharded: whether each rank holds a part of the frozen weights, which it gets whole from the others layer by layer.
    """

    precision: str | None = None
    sharded: bool = False

    @property
    def mixed_precision(self) -> str | None:
        """See `Engine.mixed_precision`."""
        return self.precision

    @property
    def moves_together(self) -> bool:
        """See `Engine.moves_together`: a pass of one rank needs the weights of all."""
        return self.sharded and self.world_size > 1

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Torch's autocast to bfloat16 if the launcher asked for it."""
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def map(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """As the native engine; with a sharded model every rank works on all items, because they all make the same passes."""
        return list(self.agree(work(items))) if self.moves_together else super().map(items, work)


def asked_for(engine: Engine, environment: Mapping[str, str] | None = None) -> Engine:
    """The engine that the environment asks for, in place of `engine` if it asks for anything.

    Args:
        engine: what a run has otherwise.
        environment: variables; default: those of this process.

    Raises:
        InputError: it asks for something that Pomona does not do.
    """
    environment = os.environ if environment is None else environment
    for name in _OTHERS:
        if environment.get(name, "false").lower() == "true":
            raise InputError(
                "is not supported", field=name, value=environment[name], fix="Launch with torchrun, or with accelerate's --use_fsdp"
            )
    precision = environment.get(PRECISION, "no").lower()
    if precision not in ("no", "bf16"):
        raise InputError(
            "must be no or bf16: gradients in less would have to be scaled",
            field=PRECISION,
            value=precision,
            fix="Use --mixed_precision bf16",
        )
    sharded = environment.get(SHARDED, "false").lower() == "true"
    if precision == "no" and not sharded:
        return engine
    return Accelerate(None if precision == "no" else precision, sharded)
