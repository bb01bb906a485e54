"""The prune ratio at work in a run: which mask is in force after each step, the controller's rounds, its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.loss import example_losses
from pomona.backbone.statistics import StreamedNorms
from pomona.control import Answer, Controller, state_from_dict, state_to_dict
from pomona.errors import InputError
from pomona.tuning.settings import Pruning
from pomona.tuning.surgery import Surgeon, select_masks


class Steering:
    """Prunes the factors of an attachment while they are trained.

    Up to the controller's `settle_step` a committed mask is held and the rounds look for a better ratio; then the answer is in
    force and the mask is selected anew after each step (see `surgery`).

    Args:
        attachment: what is trained.
        pruning: how to prune.
        controller: how much.
        optimizer: whose moments are cleared.
        micro_dev: what the controller's rewards are measured on.
        batch_size: examples a batch of a probe.
        seed: root of the controller's draws.
        total_steps: optimizer steps of the run.

    Raises:
        InputError: the controller learns, and there are no micro dev examples.
    """

    def __init__(
        self,
        attachment: Attachment,
        pruning: Pruning,
        controller: Controller,
        optimizer: torch.optim.Optimizer,
        micro_dev: Sequence[Encoded],
        batch_size: int,
        seed: int,
        total_steps: int,
    ) -> None:
        self.settle_step = controller.settle_step(total_steps)
        if self.settle_step > 0 and not micro_dev:
            raise InputError("a controller that learns the prune ratio needs micro dev examples", field="micro_dev")
        self.control = controller.start(seed, total_steps)
        self.answer: Answer | None = controller.choose(self.control) if self.settle_step == 0 else None
        self.norms = StreamedNorms(attachment, pruning.forgetting)
        self._attachment, self._pruning, self._controller = attachment, pruning, controller
        self._micro_dev, self._batch_size = micro_dev, batch_size
        self._surgeon = Surgeon(attachment, pruning.metric, self.norms, optimizer)
        if pruning.metric.needs_activations:
            attachment.observe(self.norms)

    @property
    def prune_ratio(self) -> float:
        """The ratio in force."""
        return self.answer.prune_ratio if self.answer else self.control.prune_ratio

    def after_step(self, step: int, *, last_of_epoch: bool) -> None:
        """Put the masks in force, after optimizer step number `step`.

        Args:
            step: from 1.
            last_of_epoch: the factors may be exported now, so their mask must be exact whatever the interval.
        """
        if self.answer is not None:
            if step % self._pruning.interval_steps == 0 or last_of_epoch:
                self._surgeon.reselect(self.answer.prune_ratio)
            return
        if step == 1:  # the first mask, as soon as there are statistics
            if not self._controller.refreshes_importance:
                self._surgeon.keep_scores()
            self._surgeon.hold(select_masks(self._surgeon.scores(), self.prune_ratio))
        self._surgeon.enforce()

    def round_due(self, step: int) -> bool:
        """Whether the controller wants a round after this step."""
        return self.answer is None and self._controller.round_due(self.control, step)

    def round(self, step: int) -> dict[str, object]:
        """Probe the controller's candidates on the micro dev set and commit what it decides; the round as the history has it."""
        before = example_losses(self._attachment.backbone, self._micro_dev, self._batch_size)
        scores = self._surgeon.scores()
        losses = []
        for prune_ratio in self._controller.propose(self.control):
            with self._surgeon.trial(select_masks(scores, prune_ratio)):
                losses.append(example_losses(self._attachment.backbone, self._micro_dev, self._batch_size))
        self.control = self._controller.observe(self.control, step, before, losses)
        seen = self.control.rounds[-1]
        mask_change = None
        if seen.mask_prune_ratio is not None:
            mask_change = self._surgeon.hold(select_masks(scores, seen.mask_prune_ratio))
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
        self._surgeon.hold(select_masks(self._surgeon.scores(), self.answer.prune_ratio))
        return True

    def importance(self) -> dict[str, float]:
        """Module -> mean score of the entries of both factors that are kept."""
        scores = self._surgeon.scores()
        found = {}
        for path, layer in self._attachment.layers.items():
            kept = torch.cat([scores[f"{path}.A"][layer.A != 0], scores[f"{path}.B"][layer.B != 0]])
            found[path] = float(kept.mean()) if kept.numel() else 0.0
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must hold."""
        norms = {f"norms.{name}": value for name, value in self.norms.state().items()}
        return norms | {f"surgeon.{name}": value for name, value in self._surgeon.state().items()}

    def values(self) -> dict[str, object]:
        """What else a checkpoint must hold, as JSON can."""
        return {"control": state_to_dict(self.control), "answered": self.answer is not None}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.control = state_from_dict(values["control"])
        if values["answered"]:
            self.answer = self._controller.choose(self.control)
        self.norms.load_state(_below("norms.", tensors))
        self._surgeon.load_state(_below("surgeon.", tensors))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
