"""What is in an adapter, and how similar several are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from pomona.adapters import Adapter, read_adapter
from pomona.adapters.compatible import adapter_name
from pomona.adapters.measure import describe_adapter
from pomona.adapters.overlap import compare_all


@dataclass(frozen=True)
class ModuleFigures:
    """One adapted module.

    `kind`: `linear` or `embedding`. `padding`: components of the rank that are all zero. `delta_norm`: of the update.
    `effective_rank`: from 1 to the rank; 0 for a zero update. `sparsity_A`, `sparsity_B`: shares of zeros, without the padding.
    """

    module: str
    kind: str
    out_features: int
    in_features: int
    rank: int
    padding: int
    scaling: float
    delta_norm: float
    effective_rank: float
    sparsity_A: float
    sparsity_B: float
    dtype: str


@dataclass(frozen=True)
class AdapterTotal:
    """All modules together; `padding`: how many of the `parameters`; `sparsity`: share of zeros among the others."""

    modules: int
    parameters: int
    padding: int
    ranks: list[int]
    dtypes: list[str]
    delta_norm: float
    mean_effective_rank: float | None
    sparsity: float


@dataclass(frozen=True)
class WholeTensor:
    """A tensor that the adapter replaces whole."""

    parameter: str
    shape: list[int]


@dataclass(frozen=True)
class AdapterFigures:
    """One adapter: what it was trained on, all of it, and each module."""

    path: str
    base_model: str | None
    total: AdapterTotal
    modules: list[ModuleFigures] = field(repr=False)
    whole: list[WholeTensor] = field(repr=False)


@dataclass(frozen=True)
class SharedModule:
    """A module that two adapters change: the cosine of the updates, and the overlaps of their input and output spaces in [0, 1]."""

    module: str
    cosine: float | None
    input_overlap: float | None
    output_overlap: float | None


@dataclass(frozen=True)
class PairTotal:
    """Two adapters as a whole; a value that is undefined is None. `shared_cosine`: over the shared modules alone."""

    shared_modules: int
    other_shape: int
    cosine: float | None
    shared_cosine: float | None
    input_overlap: float | None
    output_overlap: float | None


@dataclass(frozen=True)
class PairFigures:
    """Two adapters compared."""

    first: str
    second: str
    total: PairTotal
    modules: list[SharedModule] = field(repr=False)


@dataclass(frozen=True)
class Inspection:
    """The adapters in order, and every pair of them."""

    adapters: list[AdapterFigures]
    pairs: list[PairFigures]


_INSPECTION = TypeAdapter(Inspection)


def inspect(*adapters: Adapter | Path | str) -> Inspection:
    """The modules of adapters (ranks, scaling, norms, effective rank, sparsity, dtypes), and the similarity of each pair.

    Args:
        adapters: adapters, folders of PEFT LoRA adapters, or `hub:owner/name`.

    Raises:
        InputError: one that cannot be read.
    """
    opened = [one if isinstance(one, Adapter) else read_adapter(one) for one in adapters]
    names = [
        adapter_name(adapter, place) if isinstance(given, Adapter) else str(given)
        for place, (given, adapter) in enumerate(zip(adapters, opened, strict=True))
    ]
    described = [{"path": name, **describe_adapter(adapter)} for name, adapter in zip(names, opened, strict=True)]
    return _INSPECTION.validate_python({"adapters": described, "pairs": compare_all(opened)})
