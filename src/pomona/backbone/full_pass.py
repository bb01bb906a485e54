"""Exact norms: the whole training set through the model as it now is, each time they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded, evaluation_order
from pomona.backbone.loss import hidden_states, make_batch
from pomona.backbone.statistics import Norms, SquareSums
from pomona.engines import NATIVE, Engine
from pomona.importance import ModuleStatistics


class FullPassNorms(Norms):
    """L2 norms over all non-padding tokens of the training set, with the present weights, without dropout.

    `prepare` costs a forward pass over the training set, without the output head; under data parallelism each rank takes its
    share of the examples.

    Args:
        attachment: whose modules are observed.
        examples: the training set.
        batch_size: examples a batch of the pass; what memory holds in training, it holds here.
        engine: gives each rank its share of the examples, and joins the sums.
    """

    def __init__(self, attachment: Attachment, examples: Sequence[Encoded], batch_size: int, engine: Engine = NATIVE) -> None:
        self._attachment, self._engine = attachment, engine
        self._examples, self._batch_size = examples, batch_size
        self._sums = SquareSums(attachment)

    @torch.no_grad()
    def prepare(self) -> None:
        """Run the pass."""
        backbone = self._attachment.backbone
        examples = self._engine.share_of_passes(self._examples)
        self._sums.flat.zero_()
        with without_dropout(self._attachment), self._engine.autocast(backbone.device):
            for indices in evaluation_order([len(example) for example in examples], self._batch_size):
                batch = make_batch(backbone, [examples[index] for index in indices])
                self._sums.begin_batch(batch.content)
                hidden_states(backbone, batch)
                self._sums.end_batch()
        self._engine.sum_of_passes([self._sums.flat])

    def of(self, modules: Sequence[str]) -> ModuleStatistics:
        """See `Norms.of`."""
        inputs_MI, hidden_MR = self._sums.of(modules)
        return ModuleStatistics(inputs_MI.sqrt(), hidden_MR.sqrt())


@contextmanager
def without_dropout(attachment: Attachment) -> Iterator[None]:
    """Within the block the adapted modules do not drop inputs; after it they do as they did."""
    training = any(layer.training for layer in attachment.layers.values())
    attachment.train(False)
    try:
        yield
    finally:
        attachment.train(training)
