"""The `fixed` controller: a given ratio, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pomona.control.base import Answer, Controller, ControllerState, controllers
from pomona.errors import InputError


@controllers.register("fixed")
@dataclass(frozen=True)
class Fixed(Controller):
    """A given prune ratio, in force from the first step on: no rounds, no probes, no extra cost.

    Args:
        prune_ratio: in [0, 1]; 0 fine-tunes the merge without pruning.

    Raises:
        InputError: the ratio is not in [0, 1].
    """

    prune_ratio: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.prune_ratio <= 1.0:
            raise InputError("must be in [0, 1]", field="prune_ratio", value=self.prune_ratio)

    def start(self, seed: int, total_steps: int) -> ControllerState:
        """The state before the first step; it never changes."""
        return ControllerState(seed, total_steps, mean=self.prune_ratio, deviation=0.0, prune_ratio=self.prune_ratio)

    def round_due(self, state: ControllerState, step: int) -> bool:
        """Never."""
        return False

    def settle_step(self, total_steps: int) -> int:
        """0: the ratio is in force from the start."""
        return 0

    def propose(self, state: ControllerState) -> tuple[float, ...]:
        """No candidates."""
        return ()

    def observe(
        self,
        state: ControllerState,
        step: int,
        losses_before: Sequence[float],
        losses: Sequence[Sequence[float | None] | None],
    ) -> ControllerState:
        """Refused: no round is ever due."""
        raise ValueError(f"a fixed prune ratio has no rounds, but one was observed at step {step}")

    def choose(self, state: ControllerState) -> Answer:
        """The given ratio."""
        return Answer(self.prune_ratio, self.prune_ratio, self.prune_ratio, flat=False)

    @property
    def passes(self) -> int:
        """1: there is nothing to learn first."""
        return 1
