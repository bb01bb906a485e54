"""The costs of the micro dev examples under candidate masks, measured for a controller with few forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.candidates import candidate_losses
from pomona.control import Controller, ControllerState
from pomona.engines import NATIVE, Engine
from pomona.tuning.live_masks import LiveMasks, Masks

Costs = Callable[[Attachment, Sequence[int]], Sequence[float]]
"""Costs of the micro dev examples at some indices with the attached factors, lower is better."""

Row = list[float | None]
"""A candidate's costs, [N]; None for an example that was not measured."""


class Probes:
    """Measures candidates on the micro dev examples, without gradients and dropout, and restores the weights.

    Args:
        attachment: the trained factors.
        masks: gives the weights under a mask.
        examples: the micro dev set, N.
        max_tokens: largest number of tokens of one forward pass, over all candidates.
        costs: the cost of an example; None: its loss, for which the candidates of a round share forward passes.
        engine: gives all ranks the same costs; losses are the same on all ranks, which share the examples.
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
        """The costs of the examples at some indices, one row per mask; None is the mask in force."""
        if self._costs is None:
            chosen = [self.examples[index] for index in examples]
            values = [self._masks.values(masks) for masks in trials]
            return candidate_losses(self._attachment, chosen, values, self._max_tokens)
        rows = []
        for masks in trials:
            with self._masks.trial(masks):
                rows.append(list(self._costs(self._attachment, examples)))
        return self._engine.agree(rows)

    def race(
        self, controller: Controller, state: ControllerState, compared: Masks | None, trials: Sequence[Masks]
    ) -> tuple[list[float], list[Row]]:
        """The costs under the reference mask `compared` (None: the mask in force) and under each trial's mask.

        For all examples, or only for the first part if a trial was stopped.
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
