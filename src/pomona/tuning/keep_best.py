"""The transform that evaluates the epochs of a run on the dev set, and keeps the best epoch for the export."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.loss import example_losses
from pomona.tuning.average import Average
from pomona.tuning.choice import Judged, ranked
from pomona.tuning.prune import Prune
from pomona.tuning.state import HOLDS_TENSORS
from pomona.tuning.transform import Run, Transform

Judge = Callable[[Attachment], Sequence[float]]
"""Scores of the dev examples with the attached factors, higher is better."""


@dataclass(frozen=True, eq=False)
class KeptEpoch:
    """An epoch's parameters and their dev scores.

    Args:
        epoch: from 1; 0: none yet.
        dev_loss: nats per completion token; None without a dev set.
        scores: scores of the dev examples, higher is better; empty without a dev set.
        values: parameter name -> its values.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    epoch: int = 0
    dev_loss: float | None = None
    scores: list[float] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class BestState:
    """The kept epochs.

    Args:
        best: the best epoch among those pruned at the exported ratio.
        searched: the best epoch of the search for the ratio; its pruned entries have their stashed values.
        rivals, searched_rivals: the other epochs that a later one may make the best; none without a tolerance.
        first_exported: the first epoch whose factors may be exported; 0: none yet.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    best: KeptEpoch = field(default_factory=KeptEpoch)
    searched: KeptEpoch = field(default_factory=KeptEpoch)
    rivals: list[KeptEpoch] = field(default_factory=list)
    searched_rivals: list[KeptEpoch] = field(default_factory=list)
    first_exported: int = 0


class KeepBest(Transform):
    """Keeps the best epoch, and ends a run whose epochs no longer improve (`tuning.patience_epochs`).

    Args:
        prune: the run's pruning, if any, which decides which epochs may be exported. It must come before this transform.
        judge: scores the epochs; None: minus the dev examples' losses.
        average: the run's average over steps, if any, which is judged and kept in place of the latest parameters. It must come
            before this transform.
        tolerance: standard errors of the score within which the dev loss decides, >= 0 (`choice`); 0: the score alone decides.
    """

    state: BestState
    state_type: ClassVar[Any] = BestState

    def __init__(
        self,
        prune: Prune | None = None,
        judge: Judge | None = None,
        average: Average | None = None,
        tolerance: float = 0.0,
    ) -> None:
        self._prune, self._judge, self._average, self._tolerance = prune, judge, average, tolerance
        self.state = BestState()

    def between_steps(self, run: Run) -> None:
        """When the ratio has just been settled, evaluate the search's best epoch, pruned at this ratio."""
        self._look_back(run)

    def end_epoch(self, run: Run) -> None:
        """Evaluate the epoch, keep it if it is the best, and stop the run if patience is exhausted.

        An epoch that can never be exported is not evaluated: an epoch within a ramp of the ratio, or of a search without patience
        whose answer is for another run.
        """
        prune, state, patience = self._prune, self.state, run.tuning.patience_epochs
        step, epoch = run.state.step, run.state.step // run.steps_per_epoch
        exports = prune is None or prune.exports(step)
        searches = prune is not None and (prune.searches_midway or (patience is not None and prune.searches))
        with run.timed("train"), self._average.in_force(run) if self._average else nullcontext():
            dev_loss, scores = self._judged(run) if exports or searches else (None, [])
            if exports and not state.first_exported:
                state.first_exported = epoch
            new = KeptEpoch(epoch, dev_loss, scores)
            if exports:
                state.best, *state.rivals = self._kept([state.best, *state.rivals], new, lambda: _copied(run))
            best = exports and state.best.epoch == epoch
            if prune and searches and scores and not best:
                known = [state.searched, *state.searched_rivals]
                state.searched, *state.searched_rivals = self._kept(known, new, lambda: _copied(run) | prune.unpruned())
        run.state.stopped = patience is not None and self._exhausted(epoch, patience)
        averaged = self._average.state.steps if self._average else 0
        self._tell(run, epoch, dev_loss, scores, best=best, averaged_steps=averaged)

    def end(self, run: Run) -> None:
        """Set the parameters to those of the best epoch."""
        self._look_back(run)
        _put(run, self.state.best.values)

    def _look_back(self, run: Run) -> None:
        """Once there is an answer, evaluate the search's best epoch, pruned at it; the attached factors are then restored.

        The best epoch may precede the answer, because a few examples may be learned faster than the ratio.
        """
        searched = self.state.searched
        if self._prune is None or self._prune.searches or not searched.epoch:
            return
        with run.timed("train"):
            now = _copied(run)
            _put(run, searched.values)
            _put(run, self._prune.pruned(searched.values))  # scored in place, with the merge weights of that epoch
            dev_loss, scores = self._judged(run)
            self.state.best = KeptEpoch(searched.epoch, dev_loss, scores, _copied(run))
            self.state.searched, self.state.searched_rivals = KeptEpoch(), []
            _put(run, now)
        self._tell(run, searched.epoch, dev_loss, scores, best=True)

    def _exhausted(self, epoch: int, patience: int) -> bool:
        """Whether `patience` epochs have passed since the best epoch and since the first exportable epoch.

        For a search that is followed by another run, and so exports nothing, the best epoch of the search counts.
        """
        state = self.state
        if self._prune and self._prune.searches and not self._prune.searches_midway:
            return bool(state.searched.scores) and epoch - state.searched.epoch >= patience
        return bool(state.best.scores and state.first_exported) and epoch - max(state.best.epoch, state.first_exported) >= patience

    def _kept(self, kept: Sequence[KeptEpoch], new: KeptEpoch, values: Callable[[], dict[str, Tensor]]) -> list[KeptEpoch]:
        """The epochs that may still be the best after a new one, the best first.

        Without scores the latest epoch is the best.

        Args:
            kept: those before it, the best first.
            new: the new epoch, without its parameters.
            values: gives its parameters, for a new epoch that is kept.
        """
        epochs = sorted([*kept, new], key=lambda one: one.epoch) if kept[0].scores and new.scores else [new]
        judged = [Judged(one.scores, one.dev_loss or 0.0) for one in epochs]
        places = ranked(judged, self._tolerance) if new.scores else [0]
        return [replace(one, values=values()) if one is new else one for one in (epochs[place] for place in places)]

    def _judged(self, run: Run) -> tuple[float | None, list[float]]:
        """The dev loss and the score of each dev example; None and empty without a dev set."""
        if not run.data.dev:
            return None, []
        losses = example_losses(run.backbone, run.data.dev, run.tuning.batch_size)
        dev_loss = _mean(losses)
        run.check_finite("dev loss", dev_loss)
        scores = list(self._judge(run.attachment)) if self._judge else [-loss for loss in losses]
        return run.engine.agree((dev_loss, scores))

    def _tell(
        self, run: Run, epoch: int, dev_loss: float | None, scores: Sequence[float], *, best: bool, averaged_steps: int = 0
    ) -> None:
        judged: dict[str, object] = {"dev_score": _mean(scores)} if self._judge and scores else {}
        judged |= {"averaged_steps": averaged_steps} if averaged_steps else {}
        judged |= {"kept_epoch": self.state.best.epoch} if self._tolerance and self.state.best.epoch else {}
        run.tell("epoch", step=run.state.step, epoch=epoch, dev_loss=dev_loss, **judged, best=best)


def _copied(run: Run) -> dict[str, Tensor]:
    """A copy of every parameter."""
    return {name: parameter.detach().clone() for name, parameter in run.parameters.items()}


@torch.no_grad()
def _put(run: Run, values: Mapping[str, Tensor]) -> None:
    """Set parameters to these values."""
    for name, value in values.items():
        run.parameters[name].copy_(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
