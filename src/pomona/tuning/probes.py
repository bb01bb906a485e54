"""What the micro dev examples cost under masks on trial: a controller's measurements, in as few forward passes as may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.candidates import candidate_losses
from pomona.control import Controller, ControllerState
from pomona.engines import NATIVE, Engine
from pomona.tuning.live_masks import LiveMasks, Masks

Costs = Callable[[Attachment, Sequence[int]], Sequence[float]]
"""Costs of the micro dev examples at some positions, lower is better, of what is attached."""

Row = list[float | None]
"""A candidate's costs, [N]; None where it was not measured."""


class Probes:
    """Measures candidates on the micro dev examples, without gradient and dropout; the weights are as before afterwards.

    Args:
        attachment: what is trained.
        masks: knows the weights under a mask.
        examples: the micro dev set, N.
        max_tokens: most tokens of one forward pass, all candidates together.
        costs: what an example costs; None: its loss, which all candidates of a round share their passes for.
        engine: lets all ranks have the same costs.
    """

    def __init__(
        self,
        attachment: Attachment,
        masks: LiveMasks,
        examples: Sequence[Encoded],
        max_tokens: int,
        costs: Costs | None = None,
        engine: Engine = NATIVE,
    ) -> None:
        self._attachment, self._masks, self.examples = attachment, masks, examples
        self._max_tokens, self._costs, self._engine = max_tokens, costs, engine

    def measure(self, trials: Sequence[Masks | None], examples: Sequence[int]) -> list[list[float]]:
        """The costs of the examples at some positions under each mask, None for the one in force; a row each."""
        if self._costs is None:
            chosen = [self.examples[index] for index in examples]
            values = [self._masks.values(masks) for masks in trials]
            return self._engine.agree(candidate_losses(self._attachment, chosen, values, self._max_tokens))
        rows = []
        for masks in trials:
            with self._masks.trial(masks):
                rows.append(list(self._costs(self._attachment, examples)))
        return self._engine.agree(rows)

    def race(
        self, controller: Controller, state: ControllerState, compared: Masks | None, trials: Sequence[Masks]
    ) -> tuple[list[float], list[Row]]:
        """The costs under the mask that the trials are compared with, None for the one in force, and under each trial.

        Of all examples, or of the first part where a trial was stopped.
        """
        n = len(self.examples)
        first = controller.first_part(n)
        before, *rows = self.measure([compared, *trials], range(first))
        found: list[Row] = [[*row] for row in rows]
        if first < n:
            goes_on = controller.continues(state, before, rows)
            going_on = (one for one, on in zip(trials, goes_on, strict=True) if on)
            rest, *more = self.measure([compared, *going_on], range(first, n))
            before += rest
            remaining = iter(more)
            for row, on in zip(found, goes_on, strict=True):
                row += next(remaining) if on else [None] * (n - first)
        return before, found
