"""A LoRA adapter: for each adapted module a pair of factors and their scaling.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

# About 1 MB in fp32: fits a core's cache. Independent of the machine, so that random masks and results are too.
_BLOCK_ENTRIES = 2**18


@dataclass(frozen=True, eq=False)
class Factors:
    """One module's low-rank update: `delta_OI = scaling * B_OR @ A_RI`.

    Args:
        A: down projection, [R, I], any floating dtype.
        B: up projection, [O, R], the same rank and device.
        scaling: `alpha / r`, or `alpha / sqrt(r)` for rsLoRA; a merge folds it into the factors and leaves 1.

    Raises:
        ValueError: the factors are not two matrices of one rank.
    """

    A: Float[Tensor, "R I"]
    B: Float[Tensor, "O R"]
    scaling: float = 1.0

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] != self.B.shape[1]:
            raise ValueError(f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} are not [R, I] and [O, R]")

    @property
    def rank(self) -> int:
        """R, the number of rows of A."""
        return self.A.shape[0]

    @property
    def in_features(self) -> int:
        """I, the number of columns of A."""
        return self.A.shape[1]

    @property
    def out_features(self) -> int:
        """O, the number of rows of B."""
        return self.B.shape[0]

    def delta(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "O I"]:
        """The dense update `scaling * B @ A`, computed and returned in `dtype`. Builds an O x I matrix."""
        return (self.B.to(dtype) @ self.A.to(dtype)) * self.scaling

    def delta_blocks(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[slice, Float[Tensor, "N I"]]]:
        """The ranges of `row_blocks` with these rows of the dense update, computed in `dtype`, never in memory as a whole.

        Each block is new: the caller may overwrite it. Each iteration gives the same bits.
        """
        A_RI, B_OR = self.A.to(dtype), self.B.to(dtype)
        for rows in row_blocks(self.out_features, self.in_features):
            yield rows, (B_OR[rows] @ A_RI).mul_(self.scaling)


def row_blocks(out_features: int, in_features: int) -> Iterator[slice]:
    """Slices that cover the rows of an O x I matrix in order, each with at most 2^18 entries or one row."""
    rows = max(1, _BLOCK_ENTRIES // in_features)
    for start in range(0, out_features, rows):
        yield slice(start, min(start + rows, out_features))


@dataclass(frozen=True, eq=False)
class Adapter:
    """Module path -> factors, in the model's order, with their provenance.

    The mapping may be lazy: an adapter in a folder reads a module on access, and caches nothing.

    Args:
        factors: module path (`model.layers.0.self_attn.q_proj`) -> `Factors`.
        base_model: the adapter author's name of the base model, if known.
        provenance: its origin, as JSON values.
        embeddings: the modules that are embeddings. Their factors act on one-hot rows: I is the vocabulary and O the
            hidden size, so the delta is the transpose of the embedding weight's update.
        whole: parameter path (`lm_head.weight`) -> the full tensor that replaces the base's, as PEFT saves it with the factors;
            lazy like the factors.
    """

    factors: Mapping[str, Factors]
    base_model: str | None = None
    provenance: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    embeddings: frozenset[str] = frozenset()
    whole: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def modules(self) -> tuple[str, ...]:
        """The adapted modules' paths, in order."""
        return tuple(self.factors)

    def __getitem__(self, module: str) -> Factors:
        return self.factors[module]

    def __contains__(self, module: object) -> bool:
        return module in self.factors

    def __iter__(self) -> Iterator[str]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    def delta(self, module: str) -> Float[Tensor, "O I"]:
        """One module's dense update in fp32, [O, I]."""
        return self[module].delta()

    def fingerprint(self) -> str:
        """SHA-256 over paths, shapes, dtypes, scalings and bytes: equal exactly when the adapters are bit-identical."""
        digest = hashlib.sha256()

        def add(matrix: Tensor) -> None:
            digest.update(f"|{tuple(matrix.shape)}|{matrix.dtype}|".encode())
            digest.update(matrix.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())

        for module in self:
            factors = self[module]
            digest.update(f"{module}|{factors.scaling!r}{'|embedding' if module in self.embeddings else ''}".encode())
            add(factors.A)
            add(factors.B)
        for parameter, tensor in self.whole.items():
            digest.update(f"whole {parameter}".encode())
            add(tensor)
        return digest.hexdigest()
