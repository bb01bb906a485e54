"""What a training step asks of a GPU and how often it waits for it, on a pretended device, by the number of layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from tests.support.pretended_device import Counts, move, pretended_device
from tests.tiny import VOCABULARY, tiny_adapter, tiny_examples, tiny_tokenizer

from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.backbone.speed import switched_on
from pomona.control import Controller, Fixed
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning

Q_AND_V = ("q_proj", "v_proj")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BATCH = 4
TUNING = Tuning(epochs=1, batch_size=BATCH, dropout=0.1)


def narrow_llama(layers: int) -> Backbone:
    """A Llama of tiny width, with the speed-ups that it has on a GPU; its weights are on the CPU until `move`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    tokens: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**shape, **tokens, num_hidden_layers=layers)).requires_grad_(False).eval()
    there = copy.deepcopy(model)
    with pretended_device():
        move(there)
        return Backbone(model, tiny_tokenizer(), "narrow-llama", speed=switched_on(there))


@dataclass(frozen=True)
class Measured:
    """A run on the pretended device.

    Args:
        steps: what was counted from the end of one optimizer step to the end of the next, without the first.
        fitted: the result.
    """

    steps: list[Counts]
    fitted: Fitted

    @property
    def settled(self) -> Counts:
        """A step after the ratio has settled, within an epoch."""
        return self.steps[-1]


def measured(
    layers: int,
    pruning: Pruning | None,
    controller: Controller | None = None,
    targets: Sequence[str] = Q_AND_V,
    tuning: Tuning = TUNING,
    data: FitData | None = None,
    ranks: tuple[int, int] = (3, 3),
) -> Measured:
    """Fine-tune two adapters on a Llama of so many layers on the pretended device, with a given ratio by default."""
    backbone = narrow_llama(layers)
    adapters = [tiny_adapter(backbone, seed, rank, targets=targets) for seed, rank in enumerate(ranks)]
    data = data or FitData(tiny_examples(4 * BATCH, seed=1))
    found: list[Counts] = []
    step = torch.optim.AdamW.step

    def spied(optimizer: torch.optim.AdamW, *args: Any) -> Any:
        found.append(device.reset())
        return step(optimizer, *args)

    with (
        pretended_device() as device,
        mock.patch.object(torch.optim.AdamW, "step", spied),
        attached(backbone, adapters, dropout=tuning.dropout) as attachment,
    ):
        move(backbone.model)
        fitted = fit(attachment, data, tuning, pruning=pruning, controller=controller or Fixed(0.5))
    return Measured(found[1:], fitted)
