"""Losses of the same examples under several values of the factors, side by side in one forward pass.

The examples are repeated for each candidate and go through the frozen modules as one batch; an adapted module adds to each
candidate's rows that candidate's own update. An accelerator is thus asked once for what it would be asked G times.

Axes: G candidates, N examples, R rank, I input features, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.loss import example_means, make_batch, token_losses
from pomona.backbone.memory import each_batch
from pomona.backbone.speed import Packing, SharedPasses
from pomona.backbone.trainable.base import Candidates, RowsDifferError

Updates = Mapping[str, tuple[Tensor, Tensor]]
"""Module -> A [G, R, I] and B [G, O, R] of its whole update under each candidate; of one alone where nothing is trained."""


@torch.no_grad()
def candidate_losses(
    attachment: Attachment, examples: Sequence[Encoded], candidates: Sequence[Mapping[str, Tensor]], max_tokens: int
) -> list[list[float]]:
    """Mean loss of each example's completion tokens under each candidate, [G][N], nats per token. No gradient, no dropout.

    It is `example_losses` with the parameters set to each candidate's values in turn, up to rounding. Observers see nothing of
    it. A pass holds the same examples for each of its candidates. Where one example does not fit for all of them, it is measured
    for half of them at a time, as it is where a module does not read all tokens. What memory does not hold by itself is NaN.
    The examples are shared out over the ranks of the model's engine.

    Args:
        attachment: what is attached; as before afterwards.
        examples: N.
        candidates: for each, the value of every parameter by name, as `Attachment.parameters` names them.
        max_tokens: most tokens of one forward pass, padding and all candidates in it counted, >= 1. An example that has more
            goes through by itself, for one candidate.

    Raises:
        ValueError: a candidate lacks a parameter or has it in another shape; the update is folded into the base weights; less
            than one token.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens {max_tokens}: at least 1")
    if not candidates or not examples:
        return [[] for _ in candidates]
    updates = _updates(attachment, candidates)

    def measure(mine: Sequence[Encoded]) -> list[list[float]]:
        measurement = _Measurement(attachment, mine, updates, len(candidates), max_tokens)
        together = len(candidates) if SharedPasses in attachment.backbone.speed else 1
        for first in range(0, len(candidates), together):
            measurement.run(range(first, first + together), range(len(mine)))
        return _transposed(measurement.losses)

    engine = attachment.backbone.engine
    with engine.autocast(attachment.backbone.device):
        return _transposed(engine.map(examples, measure))


def _transposed(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Losses by example, of losses by candidate, and the reverse."""
    return [list(column) for column in zip(*rows, strict=True)]


class _Measurement:
    """The losses found so far, and how to find the others."""

    def __init__(
        self, attachment: Attachment, examples: Sequence[Encoded], updates: Updates, candidates: int, max_tokens: int
    ) -> None:
        self._attachment, self._examples, self._updates, self._max_tokens = attachment, examples, updates, max_tokens
        self.losses = [[math.nan] * len(examples) for _ in range(candidates)]

    def run(self, group: range, indices: Sequence[int]) -> None:
        """Measure some examples under neighbouring candidates, and what does not fit under each half of these."""
        most = self._max_tokens // len(group)
        fit = [index for index in indices if len(self._examples[index]) <= most or len(group) == 1]
        rest = [index for index in indices if index not in set(fit)]
        for chosen, found in each_batch(self._batches(fit, most), lambda chosen: self._pass(group, chosen)):
            if found is None:
                rest += chosen
                continue
            for candidate, losses in zip(group, found, strict=True):
                for index, loss in zip(chosen, losses, strict=True):
                    self.losses[candidate][index] = loss
        if rest and len(group) > 1:
            half = (len(group) + 1) // 2
            self.run(group[:half], rest)
            self.run(group[half:], rest)

    def _batches(self, indices: Sequence[int], most: int) -> list[list[int]]:
        """Batches of at most so many tokens, longest examples first; one that is longer is a batch by itself."""
        lengths = [len(example) for example in self._examples]
        batches: list[list[int]] = []
        for index in sorted(indices, key=lambda index: (-lengths[index], index)):
            last = batches[-1] if batches else []
            packed = Packing in self._attachment.backbone.speed
            tokens = sum(lengths[one] for one in (*last, index)) if packed or not last else lengths[last[0]] * (len(last) + 1)
            if last and tokens <= most:
                last.append(index)
            else:
                batches.append([index])
        return batches

    def _pass(self, group: range, indices: Sequence[int]) -> list[list[float]] | None:
        """Losses of some examples under some candidates; None where a module's rows cannot be told apart."""
        chosen = [self._examples[index] for index in indices] * len(group)
        batch = make_batch(self._attachment.backbone, chosen)
        try:
            with _in_force(self._attachment, self._updates, group, batch.tokens.numel()):
                means = example_means(token_losses(self._attachment.backbone, batch), batch, chosen)
        except RowsDifferError:
            return None
        return means.view(len(group), len(indices)).tolist()


def _updates(attachment: Attachment, candidates: Sequence[Mapping[str, Tensor]]) -> Updates:
    for name, parameter in attachment.parameters().items():
        for place, candidate in enumerate(candidates):
            if name not in candidate:
                raise ValueError(f"candidate {place} lacks {name}")
            if candidate[name].shape != parameter.shape:
                raise ValueError(f"candidate {place}: {name} is {[*candidate[name].shape]}, not {[*parameter.shape]}")
    if any(module.folded for module in attachment.modules.values()):
        raise ValueError("the update is folded into the base weights, so no other can be tried")
    updates = {}
    for path, module in attachment.modules.items():
        values = [(one[f"{path}.A"], one[f"{path}.B"]) for one in candidates] if module.trained else [(module.A, module.B)]
        As, Bs = zip(*(module.pair_of(A, B) for A, B in values), strict=True)
        updates[path] = torch.stack(As), torch.stack(Bs)
    return updates


@contextmanager
def _in_force(attachment: Attachment, updates: Updates, group: range, rows: int) -> Iterator[None]:
    """Within the block a pass over so many rows is under the group's updates."""
    try:
        for path, module in attachment.modules.items():
            A_GRI, B_GOR = updates[path]
            places = slice(group.start, group.stop) if module.trained else slice(None)
            module.candidates = Candidates(A_GRI[places], B_GOR[places], rows)
        yield
    finally:
        for module in attachment.modules.values():
            module.candidates = None
