"""Named random streams: every use of randomness has its own, derived from the recipe's one seed."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the use called `names`; another name or seed gives an unrelated one."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(seed, *names)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
