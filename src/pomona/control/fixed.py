"""The `fixed` controller: a given ratio, without learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pomona.control.base import Controller, controllers
from pomona.control.rounds import ControllerState, shares_of
from pomona.errors import InputError
from pomona.ratios import Answer, GroupRatio


@controllers.register("fixed")
@dataclass(frozen=True)
class Fixed(Controller[ControllerState]):
    """A given prune ratio, in force from the first step on: no rounds, no probes, no extra cost.

    Args:
        prune_ratio: in [0, 1]; 0 fine-tunes the merge without pruning. A list of two or more gives each group of neighbouring
            layers its own ratio, from the first layers to the last; the groups' sizes differ by at most 1 layer.

    Raises:
        InputError: a ratio is not in [0, 1], or a list has fewer than two.
    """

    prune_ratio: float | tuple[float, ...]

    def __post_init__(self) -> None:
        given = self.prune_ratio if isinstance(self.prune_ratio, tuple) else (self.prune_ratio,)
        if isinstance(self.prune_ratio, tuple) and len(given) < 2:
            raise InputError("must be a number, or a list of two or more", field="prune_ratio", value=list(given))
        for prune_ratio in given:
            if not 0.0 <= prune_ratio <= 1.0:
                raise InputError("must be in [0, 1]", field="prune_ratio", value=prune_ratio)

    @property
    def layer_groups(self) -> int:
        """The number of ratios."""
        return len(self.prune_ratio) if isinstance(self.prune_ratio, tuple) else 1

    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> ControllerState:
        """The state before the first step; it never changes.

        Raises:
            ValueError: the numbers of shares and ratios differ.
        """
        ratios = self.prune_ratio if isinstance(self.prune_ratio, tuple) else (self.prune_ratio,)
        return ControllerState(seed, total_steps, shares_of(shares, self.layer_groups), ratios)

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
        """Raises ValueError, because no round is ever due."""
        raise ValueError(f"a fixed prune ratio has no rounds, but one was observed at step {step}")

    def choose(self, state: ControllerState) -> Answer:
        """The given ratio."""
        given = state.prune_ratio
        by_group = tuple(GroupRatio(one, one, one) for one in state.ratios)
        return Answer(given, given, given, flat=False, by_group=by_group if isinstance(self.prune_ratio, tuple) else ())

    @property
    def passes(self) -> int:
        """1: no ratio has to be learned first."""
        return 1
