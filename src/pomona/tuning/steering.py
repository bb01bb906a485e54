"""The prune ratio at work in a run: which mask is in force after each step, the controller's rounds, its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.loss import example_losses
from pomona.control import Answer, Controller, state_from_dict, state_to_dict
from pomona.errors import InputError
from pomona.pruning import ramp_end, scheduled_ratio
from pomona.tuning.observation import Observation, below
from pomona.tuning.settings import FitData, Pruning, Tuning
from pomona.tuning.surgery import Surgeon


class Steering:
    """Prunes the factors of an attachment while they are trained.

    Up to the controller's `settle_step` a committed mask is held and the rounds look for a better ratio; then the answer is in
    force and the mask is selected anew after each step (see `surgery`). A given ratio may follow a schedule.

    Args:
        attachment: what is trained.
        pruning: how to prune.
        controller: how much.
        optimizer: whose moments are cleared.
        data: rewards are measured on its micro dev examples; norms may come from passes over its training examples.
        tuning: examples a batch of a probe.
        seed: root of the controller's draws.
        total_steps: optimizer steps of the run.

    Raises:
        InputError: the controller learns, and there are no micro dev examples, or a schedule is to follow; statistics that do not
            know a module.
    """

    def __init__(
        self,
        attachment: Attachment,
        pruning: Pruning,
        controller: Controller,
        optimizer: torch.optim.Optimizer,
        data: FitData,
        tuning: Tuning,
        seed: int,
        total_steps: int,
    ) -> None:
        self.settle_step = controller.settle_step(total_steps)
        if self.settle_step > 0 and not data.micro_dev:
            raise InputError("a controller that learns the prune ratio needs micro dev examples", field="micro_dev")
        if self.settle_step > 0 and pruning.schedule != "constant":
            raise InputError(
                "a controller that learns the prune ratio moves it itself",
                field="pruning.schedule",
                value=pruning.schedule,
                mend="Use constant, or a controller with a given ratio: fixed or grid",
            )
        self.control = controller.start(seed, total_steps)
        self.answer: Answer | None = controller.choose(self.control) if self.settle_step == 0 else None
        self.observation = Observation(attachment, pruning, data.train, tuning.batch_size)
        self.prune_ratio = self.control.prune_ratio
        """The ratio in force."""
        self._ramp_end = ramp_end(pruning.schedule, total_steps, pruning.ramp_fraction)
        self._total_steps = total_steps
        self._attachment, self._pruning, self._controller = attachment, pruning, controller
        self._micro_dev, self._batch_size = data.micro_dev, tuning.batch_size
        self._surgeon = Surgeon(attachment, pruning, self.observation, optimizer)

    def exports(self, step: int) -> bool:
        """Whether the factors after this step are pruned at the ratio that is to be exported."""
        return self.answer is not None and step >= self._ramp_end

    def after_step(self, step: int, *, last_of_epoch: bool) -> None:
        """Put the masks in force, after optimizer step number `step`.

        Args:
            step: from 1.
            last_of_epoch: the factors may be exported now, so their mask must be exact whatever the interval.
        """
        if self.answer is not None:
            self._after_settled_step(self.answer.prune_ratio, step, last_of_epoch=last_of_epoch)
            return
        if step == 1:  # the first mask, as soon as there are statistics
            if not self._controller.refreshes_importance:
                self._surgeon.keep_scores()
            self._surgeon.hold(self._surgeon.select(self._surgeon.scores(), self.prune_ratio))
        self._surgeon.enforce()

    def _after_settled_step(self, answer: float, step: int, *, last_of_epoch: bool) -> None:
        pruning = self._pruning
        self.prune_ratio = scheduled_ratio(pruning.schedule, answer, step, self._total_steps, pruning.ramp_fraction)
        if pruning.schedule == "once":
            if step == 1:
                self._surgeon.hold(self._surgeon.select(self._surgeon.scores(), answer))
            self._surgeon.enforce()
        elif step % pruning.interval_steps == 0 or last_of_epoch:
            self._surgeon.reselect(self.prune_ratio)

    def round_due(self, step: int) -> bool:
        """Whether the controller wants a round after this step."""
        return self.answer is None and self._controller.round_due(self.control, step)

    def round(self, step: int) -> dict[str, object]:
        """Probe the controller's candidates on the micro dev set and commit what it decides; the round as the history has it."""
        before = example_losses(self._attachment.backbone, self._micro_dev, self._batch_size)
        scores = self._surgeon.scores()
        losses = []
        for prune_ratio in self._controller.propose(self.control):
            with self._surgeon.trial(self._surgeon.select(scores, prune_ratio)):
                losses.append(example_losses(self._attachment.backbone, self._micro_dev, self._batch_size))
        self.control = self._controller.observe(self.control, step, before, losses)
        seen = self.control.rounds[-1]
        mask_change = None
        if seen.mask_prune_ratio is not None:
            mask_change = self._surgeon.hold(self._surgeon.select(scores, seen.mask_prune_ratio))
        self.prune_ratio = self.control.prune_ratio
        return {
            "index": seen.index,
            "step": seen.step,
            "loss_before": sum(seen.losses_before) / len(seen.losses_before),
            "candidates": [
                {"prune_ratio": one.prune_ratio, "reward": one.reward, "p_value": one.p_value} for one in seen.candidates
            ],
            "prune_ratio_before": seen.prune_ratio_before,
            "prune_ratio_after": seen.prune_ratio_after,
            "committed": seen.mask_prune_ratio is not None,
            "mean": seen.mean,
            "deviation": seen.deviation,
            "mask_change": mask_change,
        }

    def settle(self, step: int) -> bool:
        """At `settle_step` the controller answers, and its ratio is in force from here on; whether that was now."""
        if self.answer is not None or step != self.settle_step:
            return False
        self.answer = self._controller.choose(self.control)
        self.prune_ratio = self.answer.prune_ratio
        self._surgeon.hold(self._surgeon.select(self._surgeon.scores(), self.prune_ratio))
        return True

    def importance(self) -> dict[str, float]:
        """Module -> mean score of the entries of both factors that are kept."""
        scores = self._surgeon.scores()
        found = {}
        for path in self._attachment.layers:
            kept_A, kept_B = self._surgeon.kept(path)
            kept = torch.cat([scores[path].A[kept_A], scores[path].B[kept_B]])
            found[path] = float(kept.mean()) if kept.numel() else 0.0
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold."""
        observed = {f"observation.{name}": value for name, value in self.observation.state().items()}
        return observed | {f"surgeon.{name}": value for name, value in self._surgeon.state().items()}

    def values(self) -> dict[str, object]:
        """What else a checkpoint must hold, as JSON can."""
        return {"control": state_to_dict(self.control), "answered": self.answer is not None, "prune_ratio": self.prune_ratio}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.control = state_from_dict(values["control"])
        if values["answered"]:
            self.answer = self._controller.choose(self.control)
        self.prune_ratio = values["prune_ratio"]
        self.observation.load_state(below("observation.", tensors))
        self._surgeon.load_state(below("surgeon.", tensors))
