"""The transform that collects norms, and gradients if a metric needs them, from the forward and backward passes of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Batch, Encoded
from pomona.backbone.full_pass import FullPassNorms
from pomona.backbone.gradients import Gradients
from pomona.backbone.published_norms import PublishedNorms
from pomona.backbone.stacks import Stack
from pomona.backbone.statistics import Norms, StreamedNorms
from pomona.engines import NATIVE, Engine
from pomona.importance import ModuleStatistics
from pomona.seeding import derive_seed
from pomona.tuning.settings import Pruning
from pomona.tuning.transform import Run, Transform


class Statistics(Transform):
    """The statistics of every trained module that `Pruning` needs; `Norms` documents the time of each call.

    Args:
        attachment: the trained factors.
        pruning: its metric determines the statistics; statistics that it does not need are not computed.
        examples: the training set, for norms from separate passes.
        batch_size: examples per batch of such a pass.
        gradients: whether the last step's gradient is always kept.
        engine: sums the norms over ranks.
        seed: root seed of a metric's random draws.

    Raises:
        InputError: the published norms do not support a module.
    """

    state_type: ClassVar[Any] = dict[str, dict[str, Any]]

    def __init__(
        self,
        attachment: Attachment,
        pruning: Pruning,
        examples: Sequence[Encoded],
        batch_size: int,
        gradients: bool = False,
        engine: Engine = NATIVE,
        seed: int = 0,
    ) -> None:
        metric = pruning.metric
        self._norms = _norms(attachment, pruning, examples, batch_size, engine)
        self._stacks = attachment.stacks
        self._gathers_norms = pruning.needs_norms
        self._seeds = {path: derive_seed(seed, "importance", path) for path in attachment.layers}
        wanted = gradients or metric.needs_gradient or bool(metric.smoothing)
        self._gradients = Gradients(attachment, metric.smoothing) if wanted else None

    def before_forward(self, batch: Batch) -> None:
        """Observe the forward pass."""
        if self._gathers_norms:
            self._norms.begin_batch(batch.content)

    def after_forward(self) -> None:
        """Stop observing, because the backward pass and probes must not count."""
        if self._gathers_norms:
            self._norms.end_batch()

    def begin_again(self) -> None:
        """Forget the norms of the step's passes."""
        if self._gathers_norms:
            self._norms.begin_step_again()

    def after_backward(self, run: Run | None = None) -> None:
        """Add the step's norms and gradients, before the optimizer changes the factors."""
        if self._gathers_norms:
            self._norms.end_step()
        if self._gradients:
            self._gradients.observe()

    def prepare(self) -> None:
        """Prepare the statistics for reading."""
        if self._gathers_norms:
            self._norms.prepare()

    def of(self, stack: Stack) -> ModuleStatistics:
        """The statistics of the modules of a stack, stacked."""
        found = self._norms.of(stack.paths)
        if self._gradients is None:
            return found
        return dataclasses.replace(found, gradient=self._gradients.gradient(stack), smoothed=self._gradients.smoothed(stack))

    def each(self, stack: Stack) -> dict[str, ModuleStatistics]:
        """The statistics of each module of a stack by itself, with the seed of its draws."""
        own = self.of(stack).each([self._seeds[path] for path in stack.paths])
        return dict(zip(stack.paths, own, strict=True))

    def __getitem__(self, module: str) -> ModuleStatistics:
        return next(self.each(stack)[module] for stack in self._stacks if module in stack.modules)

    @property
    def state(self) -> dict[str, dict[str, Tensor]]:
        """The sums of the norms, and the gradients, by name."""
        return {"norms": self._norms.state(), "gradients": self._gradients.state() if self._gradients else {}}

    @state.setter
    def state(self, state: dict[str, dict[str, Tensor]]) -> None:
        self._norms.load_state(state["norms"])
        if self._gradients:
            self._gradients.load_state(state["gradients"])


def _norms(attachment: Attachment, pruning: Pruning, examples: Sequence[Encoded], batch_size: int, engine: Engine) -> Norms:
    if pruning.paper:
        return PublishedNorms(attachment, examples, engine)
    if pruning.activations == "full_pass":
        return FullPassNorms(attachment, examples, batch_size, engine)
    return StreamedNorms(attachment, pruning.forgetting, engine)
