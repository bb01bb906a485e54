"""What importance is measured from, gathered while training goes on: norms, and gradients where a metric reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.full_pass import FullPassNorms
from pomona.backbone.gradients import Gradients
from pomona.backbone.published_norms import PublishedNorms
from pomona.backbone.statistics import Norms, StreamedNorms
from pomona.importance import ModuleStatistics
from pomona.tuning.settings import Pruning


class Observation:
    """The statistics of every trained module, as `Pruning` wants them; see `Norms` for when what is called.

    Args:
        attachment: what is trained.
        pruning: its metric says what is needed; what is not needed costs nothing.
        examples: the training set, for norms that come from passes of their own.
        batch_size: examples a batch of such a pass.
        gradients: whether the last step's gradient is kept in any case.

    Raises:
        InputError: published norms, and a module that they do not know.
    """

    def __init__(
        self, attachment: Attachment, pruning: Pruning, examples: Sequence[Encoded], batch_size: int, gradients: bool = False
    ) -> None:
        metric = pruning.metric
        self._norms = _norms(attachment, pruning, examples, batch_size)
        self._gathers_norms = pruning.needs_norms
        wanted = gradients or metric.needs_gradient or bool(metric.smoothing)
        self._gradients = Gradients(attachment, metric.smoothing) if wanted else None

    def begin_batch(self, content: Bool[Tensor, "B T"]) -> None:
        """A training batch's forward pass follows."""
        if self._gathers_norms:
            self._norms.begin_batch(content)

    def end_batch(self) -> None:
        """The batch's forward pass is done."""
        if self._gathers_norms:
            self._norms.end_batch()

    def end_step(self) -> None:
        """The step's gradients are complete, over its batches and ranks, and the factors have not moved yet."""
        if self._gathers_norms:
            self._norms.end_step()
        if self._gradients:
            self._gradients.observe()

    def prepare(self) -> None:
        """Statistics are about to be read."""
        if self._gathers_norms:
            self._norms.prepare()

    def __getitem__(self, module: str) -> ModuleStatistics:
        found = self._norms[module]
        if self._gradients is None:
            return found
        return dataclasses.replace(found, gradient=self._gradients.gradient(module), smoothed=self._gradients.smoothed(module))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; `load_state` takes it back."""
        norms = {f"norms.{name}": value for name, value in self._norms.state().items()}
        gradients = self._gradients.state() if self._gradients else {}
        return norms | {f"gradients.{name}": value for name, value in gradients.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._norms.load_state(below("norms.", state))
        if self._gradients:
            self._gradients.load_state(below("gradients.", state))


def _norms(attachment: Attachment, pruning: Pruning, examples: Sequence[Encoded], batch_size: int) -> Norms:
    if pruning.activations == "full_pass":
        return FullPassNorms(attachment, examples, batch_size)
    if pruning.activations == "published":
        return PublishedNorms(attachment, examples)
    return StreamedNorms(attachment, pruning.forgetting)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
