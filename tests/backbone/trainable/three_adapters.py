"""Three adapters of one module, of different ranks, weights and scalings, for the tests of trainable merges."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pomona.adapters import Factors

IN, OUT = 7, 6
RANKS, WEIGHTS, SCALINGS = (3, 4, 2), (0.5, -1.3, 0.9), (0.7, 2.0, -1.1)


class Case(NamedTuple):
    """Which of the three adapters are frozen, and whether the weights of the others are trained."""

    frozen: tuple[int, ...] = ()
    train_weights: bool = False

    @property
    def trained(self) -> list[int]:
        return [k for k in range(3) if k not in self.frozen]


def three_pairs() -> list[Factors]:
    generator = torch.Generator().manual_seed(5)
    return [
        Factors(torch.randn(rank, IN, generator=generator) * 0.5, torch.randn(OUT, rank, generator=generator) * 0.5, scaling)
        for rank, scaling in zip(RANKS, SCALINGS, strict=True)
    ]


def base_module() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(IN, OUT).requires_grad_(False)


def inputs() -> Tensor:
    return torch.randn(2, 5, IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def loss_of(y: Tensor) -> Tensor:
    """Any scalar whose gradient differs from entry to entry."""
    return (torch.sin(y) * torch.arange(1, y.numel() + 1).view(y.shape) / y.numel()).sum()
