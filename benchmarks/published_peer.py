"""The published procedure of both papers, written from the methods' description with plain calls of torch and transformers.

A step: single examples, with accumulated gradients; after the optimizer step all training examples one by one, with the hidden
states of all layers kept on the CPU; one norm per layer, after its norm layer without the weight; the dense update's sensitivity by
autograd; masks on the sums of the factors. A probe: the loss of a single example, with the logits of all its positions. Matrix
products are torch's own, as in the published code, or Pomona's (`frozen_products`), to separate their effect.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomona.adapters import Adapter
from pomona.backbone.batches import Encoded
from pomona.backbone.embedded import embedded_model
from pomona.backbone.speed.frozen_products import freeze_linear_modules

PRUNE_RATIO = 0.5
DROPOUT = 0.05


class Parts(NamedTuple):
    """Seconds of a step's parts: gradients and optimizer, a pass for the norms alone, importance and mask."""

    train: float
    full_pass: float
    mask: float


class SummedLora(nn.Module):
    """`base(x) + (sum_k B_k) (sum_k A_k) dropout(x)`, without scaling; A [K, R, I], B [K, O, R]."""

    def __init__(self, base: nn.Module, sources: Sequence[Adapter], path: str) -> None:
        super().__init__()
        self.base = base
        self.A = nn.Parameter(torch.stack([source[path].A for source in sources]))
        self.B = nn.Parameter(torch.stack([source[path].B for source in sources]))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(F.dropout(x, DROPOUT, self.training), self.A.sum(dim=0))
        return self.base(x) + F.linear(hidden, self.B.sum(dim=0))


class PublishedPeer:
    """The published procedure on a copy of the embedded model of its own."""

    def __init__(
        self, sources: Sequence[Adapter], train: Sequence[Encoded], learning_rate: float, *, our_products: bool = False
    ) -> None:
        from transformers import AutoModelForCausalLM

        self._train = train
        self._model: Any = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32).requires_grad_(False).eval()
        if our_products:
            freeze_linear_modules(self._model)
        self._adapted = {path: SummedLora(self._model.get_submodule(path), sources, path) for path in sources[0]}
        for path, module in self._adapted.items():
            self._model.set_submodule(path, module.eval())
        self._parameters = [side for module in self._adapted.values() for side in (module.A, module.B)]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.0, fused=True)

    def __call__(self, chosen: Sequence[Encoded]) -> Parts:
        """One step, timed."""
        started = time.perf_counter()
        self._descend(chosen)
        trained = time.perf_counter()
        norms = self._norms()
        passed = time.perf_counter()
        self._prune(norms)
        return Parts(trained - started, passed - trained, time.perf_counter() - passed)

    @torch.no_grad()
    def probe(self, examples: Sequence[Encoded]) -> float:
        """Seconds that the losses of these examples take under one candidate."""
        started = time.perf_counter()
        for example in examples:
            float(self._loss(example))
        return time.perf_counter() - started

    def _descend(self, chosen: Sequence[Encoded]) -> None:
        self._switch(training=True)
        for example in chosen:
            loss = self._loss(example) / len(chosen)
            loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._switch(training=False)

    def _loss(self, example: Encoded) -> Tensor:
        tokens = torch.tensor([example.tokens])
        labels = tokens.clone()
        labels[:, : example.completion_start] = -100
        return self._model(input_ids=tokens, labels=labels, use_cache=False).loss

    def _switch(self, *, training: bool) -> None:
        for module in self._adapted.values():
            module.training = training

    @torch.no_grad()
    def _norms(self) -> list[Tensor]:
        """For each layer the L2 norm of every hidden feature over the training set, after the layer's norm without its weight."""
        kept: list[tuple[Tensor, ...]] = []
        for example in self._train:
            output = self._model(input_ids=torch.tensor([example.tokens]), use_cache=False, output_hidden_states=True)
            kept.append(tuple(state[0].cpu() for state in output.hidden_states))
        eps = self._model.config.rms_norm_eps
        layers = [torch.cat(states) for states in zip(*kept, strict=True)]
        return [F.rms_norm(hidden_NH, hidden_NH.shape[-1:], eps=eps).norm(dim=0) for hidden_NH in layers]

    def _prune(self, norms: Sequence[Tensor]) -> None:
        for path, module in self._adapted.items():
            norm_I = norms[int(path.split("layers.")[1].split(".")[0])]
            A, B = (side.detach().sum(dim=0).requires_grad_() for side in (module.A, module.B))
            size = ((B @ A).abs() * norm_I).sum()
            for factor, gradient in zip((module.A, module.B), torch.autograd.grad(size, (A, B)), strict=True):
                self._reset(factor, gradient.abs())

    @torch.no_grad()
    def _reset(self, factor: nn.Parameter, scores: Tensor) -> None:
        """Set the lowest entries to zero, for every adapter, and clear their moments."""
        mask = torch.zeros(scores.numel(), dtype=torch.bool)
        mask[scores.flatten().argsort(stable=True)[: int(PRUNE_RATIO * scores.numel())]] = True
        mask = mask.view_as(scores)
        for values in (factor, self._optimizer.state[factor]["exp_avg"], self._optimizer.state[factor]["exp_avg_sq"]):
            values.masked_fill_(mask, 0.0)
