"""The transform that prunes: the mask in force after each step, the controller's rounds, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from pomona.control import Controller
from pomona.control.rounds import check_finite
from pomona.errors import InputError
from pomona.pruning import ModuleScores, group_shares, ramp_end, scheduled_ratio
from pomona.ratios import Answer
from pomona.seeding import derive_seed
from pomona.tuning.live_masks import LiveMasks, Masks, MaskState
from pomona.tuning.probes import Costs, Probes
from pomona.tuning.settings import Pruning
from pomona.tuning.state import HOLDS_TENSORS
from pomona.tuning.statistics import Statistics
from pomona.tuning.transform import Run, Transform

_TOKENS_ON_A_CPU = 2048
"""Tokens of a probe's forward pass: enough for fast matrix products; more would exceed the caches (`probe_batching`)."""


@dataclass
class PruneState:
    """The state of the transform.

    Args:
        control: the controller's state; a checkpoint returns its fields, from which the controller restores the state.
        answered: whether the controller's answer is in force.
        prune_ratio: the ratio in force; the share of all entries, if groups of layers have their own ratios.
        masks: the masks and stashes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    control: Any
    answered: bool
    prune_ratio: float
    masks: MaskState


class Prune(Transform):
    """Prunes the factors of an attachment while they are trained.

    Until the controller's `settle_step`, a committed mask is held and the rounds search for a better ratio. Then the answer is in
    force, and a new mask is selected after each step (see `live_masks`). A given ratio may follow a schedule. `pruning.feedback`
    says in which of the two phases pruned entries are trained.

    Args:
        run: the training run; rewards are measured on its micro dev examples.
        pruning: the settings.
        controller: gives or learns the prune ratio.
        statistics: the input of importance; this transform must come before `Prune`.
        costs: the cost of a micro dev example; None: its loss.
        steps_before: optimizer steps of the run before pruning begins; controller and schedule count from there.

    Raises:
        InputError: the controller learns, but there are no micro dev examples, or there is a schedule; or the statistics lack a
            module.
    """

    state_type: ClassVar[Any] = PruneState

    def __init__(
        self,
        run: Run,
        pruning: Pruning,
        controller: Controller,
        statistics: Statistics,
        costs: Costs | None = None,
        steps_before: int = 0,
    ) -> None:
        attachment, data, total_steps = run.attachment, run.data, run.total_steps - steps_before
        self._steps_before = steps_before
        self.settle_step = controller.settle_step(total_steps)
        pruning = pruning.following(controller)
        if self.settle_step > 0 and not data.micro_dev:
            raise InputError("a controller that learns the prune ratio needs micro dev examples", field="micro_dev")
        if self.settle_step > 0 and pruning.schedule != "constant":
            raise InputError(
                "a controller that learns the prune ratio does not follow a schedule",
                field="pruning.schedule",
                value=pruning.schedule,
                fix="Use constant, or a controller with a given ratio: fixed, grid or tpe",
            )
        with torch.no_grad():
            sides = ((path, layer.effective()) for path, layer in attachment.layers.items())
            entries = {path: pair.A.numel() + pair.B.numel() for path, pair in sides}
        self.control = controller.start(
            derive_seed(run.seed, "controller"), total_steps, group_shares(entries, controller.layer_groups)
        )
        self._attachment, self._pruning, self._controller, self._engine = attachment, pruning, controller, run.engine
        self.answer: Answer | None = None
        self._answer_ratios: tuple[float, ...] = ()
        """The answer's ratio over all entries, then that of each group of layers."""
        if self.settle_step == 0:
            self._take_answer()
        self.prune_ratio = self.control.prune_ratio
        """The ratio in force; the share of all entries, if groups of layers have their own ratios."""
        self._ramp_end = ramp_end(pruning.schedule, total_steps, pruning.ramp_fraction)
        self._total_steps = total_steps
        self.final_importance: dict[str, float] = {}
        """`importance` after the last step."""
        self._masks = LiveMasks(attachment, pruning, statistics, run.optimizer, controller.handling)
        on_cpu = attachment.backbone.device.type == "cpu"
        max_tokens = _TOKENS_ON_A_CPU if on_cpu else run.tuning.batch_size * run.tuning.max_tokens
        self._probes = Probes(attachment, self._masks, data.micro_dev, max_tokens, costs, run.engine)
        # With other costs than losses, dev losses cannot show whether the micro dev set represents the dev set.
        dev = data.dev[: (len(data.micro_dev) + 1) // 2] if costs is None else ()
        self._dev = Probes(attachment, self._masks, dev, max_tokens, None, run.engine)

    @property
    def searches(self) -> bool:
        """Whether the search for the ratio is in progress."""
        return self.answer is None

    @property
    def searches_midway(self) -> bool:
        """Whether the search is in progress, and the run continues after it."""
        return self.answer is None and self.settle_step < self._total_steps

    @property
    def trains_pruned(self) -> bool:
        """Whether pruned entries are trained under the exported ratio too, so that their stash is a part of the trained weights."""
        return self._pruning.feedback == "always"

    def exports(self, step: int) -> bool:
        """Whether the factors after this step are pruned at the exported ratio."""
        return self.answer is not None and step - self._steps_before >= max(self._ramp_end, 1)

    # The hooks ------------------------------------------------------------------------------------------------------------

    def after_step(self, run: Run) -> dict[str, object]:
        """Apply the masks; adds the ratio to the step's event."""
        if self._step(run) <= 0:
            return {}
        self.put_masks(self._step(run), last_of_epoch=run.state.step % run.steps_per_epoch == 0)
        if self._masks.nan is not None:
            run.log.finite({"importance": self._masks.nan}, run.state.step)
        return {"prune_ratio": self.prune_ratio}

    def between_steps(self, run: Run) -> None:
        """Run a round of the controller if it is due, and take its answer if the search ends here."""
        step = self._step(run)
        if step <= 0:
            return
        if self.round_due(step):
            self._tell(run, "round", self.round)
        if self.settle_due(step):
            self._tell(run, "settled", self.settle)

    def end(self, run: Run) -> None:
        """Take the controller's answer if patience ended the search."""
        if self.searches:
            self._tell(run, "settled", self.settle)
        self.final_importance = self.importance()

    def _tell(self, run: Run, kind: str, act: Callable[[int], dict[str, object]]) -> None:
        with run.timed("probe"):
            found = act(self._step(run))
        run.tell(kind, **found | {"step": run.state.step})
        run.progress.ratio(self.prune_ratio)

    def _step(self, run: Run) -> int:
        """The optimizer steps since pruning began."""
        return run.state.step - self._steps_before

    # Their work -----------------------------------------------------------------------------------------------------------

    def put_masks(self, step: int, *, last_of_epoch: bool) -> None:
        """Apply the masks after optimizer step number `step`.

        Args:
            step: from 1.
            last_of_epoch: the factors may be exported now, so their mask must be exact for any interval.
        """
        if self.answer is not None:
            self._after_settled_step(step, last_of_epoch=last_of_epoch)
            return
        if step == 1 and not self._controller.handling.starts_unpruned:  # the first mask, as soon as there are statistics
            self._masks.hold(self._masks.select(self._masks.scores(), self.control.ratios))
        self._masks.enforce(feedback=self._pruning.feedback != "never" and self._controller.handling.trains_pruned)

    def _after_settled_step(self, step: int, *, last_of_epoch: bool) -> None:
        pruning = self._pruning
        # A ramp scales every ratio by the same factor, so it scales their mean by this factor.
        self.prune_ratio, *ratios = (
            scheduled_ratio(pruning.schedule, one, step, self._total_steps, pruning.ramp_fraction) for one in self._answer_ratios
        )
        if pruning.schedule == "once":
            if step == 1:
                self._masks.hold(self._masks.select(self._masks.scores(), ratios))
            self._masks.enforce()
            return
        selects = step % pruning.interval_steps == 0 or last_of_epoch
        if pruning.feedback == "always":
            self._masks.feed_back(ratios if selects else None)
        elif selects:
            self._masks.reselect(ratios)

    def round_due(self, step: int) -> bool:
        """Whether the controller wants a round after this step."""
        return self.answer is None and self._controller.round_due(self.control, step)

    def round(self, step: int) -> dict[str, object]:
        """Measure the controller's candidates on the micro dev set and commit its decision; returns the history's line.

        The reference of the candidates is a mask of the same scores at the controller's reference ratio, or the mask in force.
        """
        controller = self._controller
        if not controller.handling.refreshes_importance:
            self._masks.keep_scores()
        scores = self._masks.scores()
        reference = controller.reference(self.control)
        compared = None if reference is None else self._masks.select(scores, reference)
        masks = [self._masks.select(scores, ratios) for ratios in controller.propose_by_group(self.control)]
        tried = self._screened(masks)
        trials = [one for one, wanted in zip(masks, tried, strict=True) if wanted]
        before, rows = self._probes.race(controller, self.control, compared, trials)
        measured = iter(rows)
        self.control = controller.observe(self.control, step, before, [next(measured) if wanted else None for wanted in tried])
        seen = self.control.rounds[-1]
        change = None
        if seen.mask_ratios is not None:
            change = self._masks.hold(self._masks.select(scores, seen.mask_ratios))
        self.prune_ratio = self.control.prune_ratio
        cost = (change.changed, change.newly_pruned) if change else ()
        return seen.record(self.control.shares, *cost).to_line()

    def _screened(self, masks: Sequence[Masks]) -> Sequence[bool]:
        """Whether each candidate is tried."""
        if not self._controller.wants_estimates:
            return [True] * len(masks)
        estimates = self._engine.agree([self._masks.first_order(one) for one in masks])
        return self._controller.screen(self.control, estimates)

    def settle_due(self, step: int) -> bool:
        """Whether the controller answers after this step."""
        return self.answer is None and step == self.settle_step

    def settle(self, step: int) -> dict[str, object]:
        """Take the controller's answer, which is in force from now on; returns the history's line."""
        answer = self._take_answer()
        self.prune_ratio = answer.prune_ratio
        scores = self._masks.scores()
        dev_check = self._dev_check(scores, answer)
        self._masks.hold(self._masks.select(scores, answer.ratios))
        by_group = _by_group(answer.ratios if answer.by_group else ())
        return {"step": step, "prune_ratio": self.prune_ratio, "dev_check": dev_check, **by_group}

    def _take_answer(self) -> Answer:
        answer = self.answer = self._controller.choose(self.control)
        self._answer_ratios = (answer.prune_ratio, *answer.ratios)
        return answer

    def _dev_check(self, scores: Mapping[str, ModuleScores], answer: Answer) -> list[list[float]]:
        """(prune ratio, cost by the curve, dev loss) at the lowest ratio tried, the answer and the highest, to compare the two.

        The curve's cost is relative to the answer. The dev loss is the mean over half as many dev examples as there are
        micro dev examples, so that the check costs less than a round. A flat curve ranks nothing, so nothing is measured.
        """
        if answer.flat or not answer.curve or not self._dev.examples:
            return []
        gains = {point.prune_ratio: point.reward for point in answer.curve}
        # The answer comes last: if it is the lowest or the highest ratio, it replaces that entry.
        trials = {one: (-gains[one], (one,)) for one in (min(gains), max(gains))} | {answer.prune_ratio: (0.0, answer.ratios)}
        masks = [self._masks.select(scores, ratios) for _, ratios in trials.values()]
        rows = self._dev.measure(masks, range(len(self._dev.examples)))
        check_finite([loss for row in rows for loss in row], "a dev loss is not finite where the search ended")
        found = [[one, cost, sum(row) / len(row)] for (one, (cost, _)), row in zip(trials.items(), rows, strict=True)]
        return sorted(found)

    def masked(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of the factors, of which the mask in force prunes entries."""
        return self._masks.masked(values)

    def unpruned(self) -> dict[str, Tensor]:
        """The current factors, with pruned entries at their stashed values."""
        return self._masks.unpruned()

    def pruned(self, unpruned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The factors `unpruned`, of an earlier step, pruned at the answer."""
        assert self.answer is not None
        return self._masks.pruned(unpruned, self.answer.ratios)

    def importance(self) -> dict[str, float]:
        """Module -> mean score of the kept entries of both factors."""
        return self._masks.importance()

    @property
    def state(self) -> PruneState:
        """The state of the transform."""
        return PruneState(self.control, self.answer is not None, self.prune_ratio, self._masks.state)

    @state.setter
    def state(self, state: PruneState) -> None:
        self.control = self._controller.load_state(state.control)
        self.answer = None
        if state.answered:
            self._take_answer()
        self.prune_ratio, self._masks.state = state.prune_ratio, state.masks


def _by_group(ratios: tuple[float, ...]) -> dict[str, list[float]]:
    """The history's field of the groups' ratios; empty if there is one ratio for all."""
    return {"by_group": list(ratios)} if ratios else {}
