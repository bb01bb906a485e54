"""PEFT as the reference: adapters on one bare linear layer, merged by its `add_weighted_adapter`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import peft
import torch
from torch import Tensor, nn

from pomona.adapters import Adapter, Factors
from pomona.seeding import stream

MODULE = "q_proj"


def random_adapter(seed: int, rank: int, out_features: int, in_features: int, scaling: float = 2.0) -> Adapter:
    """One module's factors, as if trained."""
    generator = stream(seed, "peer")
    A = torch.randn(rank, in_features, generator=generator) / in_features**0.5
    B = torch.randn(out_features, rank, generator=generator) * 0.1
    return Adapter({MODULE: Factors(A, B, scaling)})


class Peer:
    """A PEFT model that holds the given adapters as `0`, `1`, ...

    Args:
        adapters: of the one module `q_proj`.
        rslora: whether their configs say rsLoRA; alpha is chosen so that the scaling is the adapter's own.
        config_rank: what the configs give as `r`, the true ranks then being in `rank_pattern`; None: the true rank.
    """

    def __init__(self, adapters: Sequence[Adapter], *, rslora: bool = False, config_rank: int | None = None) -> None:
        first = adapters[0][MODULE]
        base = nn.ModuleDict({MODULE: nn.Linear(first.in_features, first.out_features, bias=False)})
        self.names = [str(place) for place in range(len(adapters))]
        model: Any = None
        for name, adapter in zip(self.names, adapters, strict=True):
            factors = adapter[MODULE]
            alpha = factors.scaling * (factors.rank**0.5 if rslora else factors.rank)
            config = peft.LoraConfig(
                r=config_rank or factors.rank,
                rank_pattern={MODULE: factors.rank},
                lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
                target_modules=[MODULE],
                use_rslora=rslora,
            )
            if model is None:
                model = peft.PeftModel(base, config, adapter_name=name)  # pyright: ignore[reportArgumentType]
            else:
                model.add_adapter(name, config)
            layer = model.base_model.model[MODULE]
            layer.lora_A[name].weight.data.copy_(factors.A)
            layer.lora_B[name].weight.data.copy_(factors.B)
        self.model = model
        self.layer = model.base_model.model[MODULE]

    def merge(self, combination: str, weights: Sequence[float], **options: object) -> Tensor:
        """The delta that the merged adapter has in PEFT, fp64 [O, I]; the adapter is removed again."""
        self.add(combination, weights, **options)
        A, B = (side["merged"].weight.data.double() for side in (self.layer.lora_A, self.layer.lora_B))
        delta = self.layer.scaling["merged"] * (B @ A)
        self.remove()
        return delta

    def add(self, combination: str, weights: Sequence[float], **options: object) -> None:
        """Only the merge itself, for timing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.base_model.add_weighted_adapter(self.names, list(weights), "merged", combination_type=combination, **options)

    def remove(self) -> None:
        """Make room for the next one."""
        self.model.base_model.delete_adapter("merged")
