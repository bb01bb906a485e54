"""Adapters of realistic size: the linear modules of Llama 3 8B, with random values."""

from __future__ import annotations

from pathlib import Path

import torch

from pomona.adapters import Adapter, Factors, write_adapter
from pomona.seeding import stream

LAYERS = 32
QV = {"self_attn.q_proj": (4096, 4096), "self_attn.v_proj": (1024, 4096)}
ALL = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}


def llama_adapter(shapes: dict[str, tuple[int, int]], rank: int, seed: int) -> Adapter:
    """An adapter with an effect, alpha twice the rank as is usual, in fp32 as PEFT saves it."""
    generator = stream(seed, "llama adapter")
    factors = {
        f"model.layers.{layer}.{name}": Factors(
            torch.randn(rank, in_features, generator=generator) / in_features**0.5,
            torch.randn(out_features, rank, generator=generator) * 0.01,
        )
        for layer in range(LAYERS)
        for name, (out_features, in_features) in shapes.items()
    }
    return Adapter(factors, "meta-llama/Meta-Llama-3-8B")


def write_sources(folder: Path, shapes: dict[str, tuple[int, int]], rank: int, count: int = 2) -> list[Path]:
    """`count` such adapters as PEFT folders."""
    paths = [folder / f"source{place}" for place in range(count)]
    for place, path in enumerate(paths):
        write_adapter(llama_adapter(shapes, rank, place), path)
    return paths
