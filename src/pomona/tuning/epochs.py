"""The epochs of a run, judged on the dev set: which one's factors are handed out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.loss import example_losses
from pomona.backbone.ranks import same_on_all_ranks
from pomona.tuning.observation import below
from pomona.tuning.steering import Steering

Judge = Callable[[Attachment], Sequence[float]]
"""Scores of the dev examples, higher is better, of what is attached."""


@dataclass(frozen=True, eq=False)
class KeptEpoch:
    """An epoch's parameters, and what the dev set says of them.

    Args:
        epoch: from 1; 0 where there is none yet.
        dev_loss: nats per completion token; None without a dev set.
        scores: of the dev examples, higher is better; empty without a dev set.
        values: parameter name -> its values.
    """

    epoch: int = 0
    dev_loss: float | None = None
    scores: Sequence[float] = ()
    values: Mapping[str, Tensor] = field(default_factory=dict)

    def yields_to(self, scores: Sequence[float]) -> bool:
        """Whether an epoch with these scores takes its place: it is better in the mean, or there is nothing to tell by."""
        return not self.scores or not scores or same_on_all_ranks(_mean(scores) - _mean(self.scores)) > 0


class Epochs:
    """Keeps the best epoch of those that are pruned at the ratio to be exported; and before them the best one of the search.

    Args:
        attachment: what is trained.
        steering: of its pruning, if any.
        dev: examples, encoded; may be empty.
        batch_size: examples a batch.
        judge: what the epochs are compared by; None: minus the dev examples' losses.
        patience: after so many epochs without a better one the run is to stop; None for never.
        check: told a name and a value; raises where it is not finite.
    """

    def __init__(
        self,
        attachment: Attachment,
        steering: Steering | None,
        dev: Sequence[Encoded],
        batch_size: int,
        judge: Judge | None,
        patience: int | None,
        check: Callable[[str, float], None],
    ) -> None:
        self._attachment, self._steering, self._judge, self._check = attachment, steering, judge, check
        self._dev, self._batch_size, self._patience = dev, batch_size, patience
        self._parameters = attachment.parameters() | attachment.weight_parameters()
        self.best = KeptEpoch()
        self._searched = KeptEpoch()
        """Its pruned entries are at their stashed values."""
        self._first = 0
        """The first epoch that ended with factors to be exported; 0: none yet."""

    def end(self, epoch: int, step: int) -> dict[str, Any]:
        """Judge what is attached at the end of an epoch, and keep it if it is the best; the event of it.

        An epoch that can never be handed out is not judged: of a ramp of the ratio, or of a search whose answer is for another run
        and which no patience ends.
        """
        steering = self._steering
        exports = steering is None or steering.exports(step)
        searches = steering is not None and (steering.searches_midway or (self._patience is not None and steering.searches))
        dev_loss, scores = self._judged() if exports or searches else (None, [])
        if exports and not self._first:
            self._first = epoch
        best = exports and self.best.yields_to(scores)
        if best:
            self.best = KeptEpoch(epoch, dev_loss, scores, self._values())
        elif steering and searches and scores and self._searched.yields_to(scores):
            self._searched = KeptEpoch(epoch, dev_loss, scores, self._values() | steering.unpruned())
        return self._told(epoch, step, dev_loss, scores, best=best)

    def look_back(self, step: int) -> dict[str, Any] | None:
        """Judge the search's best epoch, pruned at the answer; the event of it, or None where there is none.

        A few examples may be learned before the ratio is. What is attached is afterwards as it was.
        """
        searched, self._searched = self._searched, KeptEpoch()
        if self._steering is None or not searched.epoch:
            return None
        now = self._values()
        self.put(searched.values)
        self.put(self._steering.pruned(searched.values))  # scored where they belong, with the merge weights of that epoch
        dev_loss, scores = self._judged()
        self.best = KeptEpoch(searched.epoch, dev_loss, scores, self._values())
        self.put(now)
        return self._told(searched.epoch, step, dev_loss, scores, best=True)

    def exhausted(self, epoch: int) -> bool:
        """Whether the best epoch, and the first that could be exported, lie as many epochs back as patience lasts.

        A search that is followed by another run exports nothing: there the best epoch of the search counts.
        """
        if self._patience is None:
            return False
        if self._steering and self._steering.searches and not self._steering.searches_midway:
            return bool(self._searched.scores) and epoch - self._searched.epoch >= self._patience
        return bool(self.best.scores and self._first) and epoch - max(self.best.epoch, self._first) >= self._patience

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Let the parameters have these values."""
        for name, value in values.items():
            self._parameters[name].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold."""
        return {f"{key}.{name}": value for key, kept in self._kept().items() for name, value in kept.values.items()}

    def values(self) -> dict[str, object]:
        """What else a checkpoint must hold, as JSON can."""
        facts = {
            key: {"epoch": kept.epoch, "dev_loss": kept.dev_loss, "scores": list(kept.scores)} for key, kept in self._kept().items()
        }
        return {**facts, "first_exported": self._first}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._first = values["first_exported"]
        self.best, self._searched = (KeptEpoch(**values[key], values=below(f"{key}.", tensors)) for key in self._kept())

    def _kept(self) -> dict[str, KeptEpoch]:
        return {"best": self.best, "searched": self._searched}

    def _judged(self) -> tuple[float | None, list[float]]:
        """The dev loss, and the score of each dev example; none without a dev set."""
        if not self._dev:
            return None, []
        losses = example_losses(self._attachment.backbone, self._dev, self._batch_size)
        dev_loss = _mean(losses)
        self._check("dev loss", dev_loss)
        return dev_loss, list(self._judge(self._attachment)) if self._judge else [-loss for loss in losses]

    def _values(self) -> dict[str, Tensor]:
        """A copy of every parameter."""
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def _told(self, epoch: int, step: int, dev_loss: float | None, scores: Sequence[float], *, best: bool) -> dict[str, Any]:
        judged = {"dev_score": _mean(scores)} if self._judge and scores else {}
        return {"step": step, "epoch": epoch, "dev_loss": dev_loss, **judged, "best": best}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
