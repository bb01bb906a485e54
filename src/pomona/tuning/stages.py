"""The transform that trains factors and coefficients in stages, one after the other, within the steps of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pomona.backbone.attach import Attachment
from pomona.errors import InputError
from pomona.tuning.transform import Run, Transform

Trained = Literal["factors", "coefficients"]


class Stage(NamedTuple):
    """A part of a run.

    Args:
        trains: what is trained; the other parameters keep their values.
        share: share of the run's optimizer steps, in (0, 1]; the shares of all stages add up to 1.
    """

    trains: Trained
    share: float


def stage_ends(stages: Sequence[Stage], total_steps: int) -> list[int]:
    """The optimizer step, from 1, after which each stage ends: its share of the steps, rounded.

    Raises:
        InputError: a stage has no step.
    """
    ends = [round(sum(stage.share for stage in stages[: place + 1]) * total_steps) for place in range(len(stages))]
    for stage, first, last in zip(stages, [0, *ends], ends, strict=False):
        if last <= first:
            raise InputError(
                f"a run of {total_steps} optimizer steps leaves the stage {stage.trains} none",
                field="merge.train",
                value=stage.share,
                fix="Give the stage a larger share, or train more epochs",
            )
    return ends


def steps_before_factors(stages: Sequence[Stage], total_steps: int) -> int:
    """The optimizer steps of the stages before the first one that trains factors; pruning begins after them."""
    before = 0
    for stage, end in zip(stages, stage_ends(stages, total_steps), strict=True):
        if stage.trains == "factors":
            return before
        before = end
    return 0


class Stages(Transform):
    """Trains what the stage in force says.

    Args:
        attachment: has trained factors and coefficients.
        stages: in order.
        total_steps: of the run.

    Raises:
        InputError: a stage has no step.
    """

    state_type: ClassVar[Any] = int

    def __init__(self, attachment: Attachment, stages: Sequence[Stage], total_steps: int) -> None:
        self._attachment, self._stages, self._ends = attachment, stages, stage_ends(stages, total_steps)
        self.state = 0

    @property
    def state(self) -> int:
        """The place of the stage in force."""
        return self._place

    @state.setter
    def state(self, place: int) -> None:
        self._place = place
        self._attachment.train_only(self._stages[place].trains)

    def after_step(self, run: Run) -> dict[str, object]:
        """Begin the next stage if this one ends here; adds what the step trained to its event."""
        trained = self._stages[self.state].trains
        if run.state.step == self._ends[self.state] and run.state.step < run.total_steps:
            self.state += 1
        return {"trained": trained}
