"""The merge methods' definitions on dense matrices, written plainly and apart from Pomona's: what the factored ones must equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pomona.adapters import Factors

GENERATOR = torch.Generator()


def delta(one: Factors) -> Tensor:
    return one.scaling * (one.B.double() @ one.A.double())


def exact(factors: Sequence[Factors], weights: Sequence[float]) -> Tensor:
    return torch.stack([weight * delta(one) for one, weight in zip(factors, weights, strict=True)]).sum(0)


def error(merged: Factors, expected: Tensor) -> float:
    """Relative to the expected matrix's norm."""
    return float((delta(merged) - expected).norm() / expected.norm())


def ties(parts: Sequence[Tensor], density: float) -> Tensor:
    """TIES entry by entry."""
    trimmed = []
    for part in parts:
        flat = part.numpy().ravel()
        kept = sorted(range(len(flat)), key=lambda at, flat=flat: -abs(flat[at]))[: int(density * len(flat))]
        trimmed.append(np.where(np.isin(np.arange(len(flat)), kept), flat, 0.0))
    merged = np.zeros(parts[0].numel())
    for at, entries in enumerate(zip(*trimmed, strict=True)):
        agreeing = [entry for entry in entries if entry * sum(entries) > 0]
        merged[at] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return torch.from_numpy(merged).view_as(parts[0])


def nonzero(S: Tensor) -> int:
    return int(S.gt(1e-9 * S[0]).sum())
