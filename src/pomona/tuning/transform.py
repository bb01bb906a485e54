"""A transform adds to plain training: statistics, pruning with its controller, or the choice of the best epoch.

The loop calls each hook of the transforms that override it, in the transforms' order:

    before_forward, after_forward    around the forward pass of each batch
    after_backward                   the step's gradients are complete: summed over batches and ranks, not clipped
    after_step                       the optimizer has updated the parameters
    between_steps                    the step's event is written; the time of this hook is not training time
    end_epoch                        after the last step of an epoch
    end                              after the last step of the run

The `state` of a transform is everything in it that changes; a checkpoint holds it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Batch, training_order
from pomona.backbone.load import Backbone
from pomona.engines import Engine
from pomona.seeding import derive_seed, stream
from pomona.tuning.log import Log, check_finite
from pomona.tuning.progress import Progress
from pomona.tuning.settings import Event, FitData, Tuning
from pomona.tuning.state import TrainState, random_state, restore_random_state, typed


@dataclass(eq=False)
class Run:
    """One training run, for the loop and its transforms.

    Args:
        attachment: the trained factors.
        data: encoded examples; no test data.
        tuning: the optimizer's settings.
        optimizer: the optimizer of all parameters; each group has its learning rate before decay as `first_rate`.
        system: name in the history.
        seed: root seed of the order of batches and of dropout.
        engine: runs a step.
        emit: called with each event of the history.
        progress: display for the user.
        state: the state besides the parameters, the optimizer and the transforms.
    """

    attachment: Attachment
    data: FitData
    tuning: Tuning
    optimizer: torch.optim.Optimizer
    system: str
    seed: int
    engine: Engine
    emit: Callable[[Event], None]
    progress: Progress
    state: TrainState = field(default_factory=TrainState)
    micro_batch: int | None = field(default=None, init=False)
    """Most examples a pass, where memory did not hold a whole batch; None: it did."""
    _order: tuple[int, list[list[int]]] | None = field(default=None, init=False, repr=False)

    @property
    def backbone(self) -> Backbone:
        """The frozen model."""
        return self.attachment.backbone

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All trained parameters: factors, and merge weights if they are trained."""
        return self.attachment.parameters() | self.attachment.weight_parameters()

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.tuning.total_steps(len(self.data.train))

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return self.total_steps // self.tuning.epochs

    def order_of_batches(self, epoch: int) -> list[list[int]]:
        """The indices of each batch's examples in an epoch, drawn by the seed; `epoch` counts from 0."""
        if self._order is None or self._order[0] != epoch:
            lengths = [len(example) for example in self.data.train]
            self._order = epoch, training_order(lengths, self.tuning.batch_size, stream(self.seed, "batches", epoch))
        return self._order[1]

    @cached_property
    def log(self) -> Log:
        """Adds events to the history."""
        return Log.on(self.backbone.device, self.system, self._add)

    def _add(self, event: Event) -> None:
        self.state.history.append(event)
        self.emit(event)

    def tell(self, kind: str, **fields: object) -> None:
        """Add an event to the history; that of a step by `log.step`."""
        self.log.tell({"kind": kind, "system": self.system, **fields})

    @contextmanager
    def timed(self, kind: Literal["train", "probe"]) -> Iterator[None]:
        """Count the time of the block as training or as probing."""
        started = time.perf_counter()
        yield
        name = f"{kind}_seconds"
        setattr(self.state, name, getattr(self.state, name) + time.perf_counter() - started)

    def check_finite(self, name: str, value: float) -> None:
        """Refuse a value that is NaN or infinite.

        Raises:
            PomonaError: the value is not finite.
        """
        check_finite(name, value, self.system, self.state.step)

    def start_random_streams(self) -> None:
        """Seed dropout, differently on every rank, and after a resume differently from the first step's."""
        place = [self.engine.rank] if self.engine.rank else []
        if place and self.state.step:
            place.append(self.state.step)
        torch.manual_seed(derive_seed(self.seed, "dropout", *place))

    def snapshot(self, transforms: Mapping[str, Transform]) -> TrainState:
        """The complete state; it shares memory with the run."""
        self.log.read()
        gather = self.engine.gather
        return dataclasses.replace(
            self.state,
            factors={name: gather(parameter) for name, parameter in self.parameters.items()},
            optimizer={
                name: {key: gather(value) for key, value in self.optimizer.state[parameter].items()}
                for name, parameter in self.parameters.items()
            },
            transforms={name: transform.state for name, transform in transforms.items()},
            random=random_state(self.backbone.device),
        )

    @torch.no_grad()
    def restore(self, state: TrainState, transforms: Mapping[str, Transform]) -> None:
        """Resume from the state of a checkpoint; its events are emitted again.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: it is not a state of this run.
        """
        if not 0 <= state.step <= self.total_steps:
            raise ValueError(f"step {state.step} of {self.total_steps}")
        shapes = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        if {name: tuple(values.shape) for name, values in state.factors.items()} != shapes:
            raise ValueError("factors of other names or shapes")
        if state.optimizer.keys() != shapes.keys() or state.transforms.keys() != transforms.keys():
            raise ValueError("other parameters or transforms")
        for name, parameter in self.parameters.items():
            parameter.copy_(state.factors[name])
            self.optimizer.state[parameter] = state.optimizer[name]
        for name, transform in transforms.items():
            transform.state = typed(transform.state_type, state.transforms[name])
        self.state = dataclasses.replace(state, factors={}, optimizer={}, transforms={}, random={})
        self.start_random_streams()
        if self.engine.is_main:  # the checkpoint has the state of rank 0 alone, and no two ranks may draw the same
            restore_random_state(state.random, self.backbone.device)
        for event in self.state.history:
            self.emit(event)


class Transform:
    """Base class without effect: a subclass overrides the hooks that it needs."""

    state: Any = None
    """Everything that changes: a value of `state_type`."""

    state_type: ClassVar[Any] = type(None)

    def before_forward(self, batch: Batch) -> None:
        """Called before the forward pass of a training batch."""

    def after_forward(self) -> None:
        """Called after the forward pass and before the backward pass."""

    def begin_again(self) -> None:
        """Called where memory did not hold a pass: the step's passes begin again, and those that there were do not count."""

    def after_backward(self, run: Run) -> None:
        """Called when the gradients of the step are complete and the parameters are not yet updated."""

    def after_step(self, run: Run) -> Mapping[str, object]:
        """Called after optimizer step number `run.state.step`; returns fields for the step's event."""
        return {}

    def between_steps(self, run: Run) -> None:
        """Called after a complete step."""

    def end_epoch(self, run: Run) -> None:
        """Called after the last step of an epoch."""

    def end(self, run: Run) -> None:
        """Called after the last step of the run."""


@dataclass(frozen=True)
class Hooks:
    """The hooks of a run's transforms, in the transforms' order, without those that have no effect."""

    before_forward: list[Callable[[Batch], None]]
    after_forward: list[Callable[[], None]]
    begin_again: list[Callable[[], None]]
    after_backward: list[Callable[[Run], None]]
    after_step: list[Callable[[Run], Mapping[str, object]]]
    between_steps: list[Callable[[Run], None]]
    end_epoch: list[Callable[[Run], None]]
    end: list[Callable[[Run], None]]

    @classmethod
    def of(cls, transforms: Iterable[Transform]) -> Hooks:
        """The hooks that the classes of the transforms override."""
        found: dict[str, list[Any]] = {hook.name: [] for hook in dataclasses.fields(cls)}
        for transform in transforms:
            for name, hooks in found.items():
                if getattr(type(transform), name) is not getattr(Transform, name):
                    hooks.append(getattr(transform, name))
        return cls(**found)
