"""Random streams derived from a seed and names: the same for a resumed run, and independent of each other."""

from __future__ import annotations

import hashlib

import torch


def derived_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator that is a function of `seed` and `names` alone.

    Args:
        seed: root of a controller's streams.
        names: which stream, such as `"round", 3, "samples"`.
    """
    digest = hashlib.sha256("|".join(map(str, (seed, *names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
