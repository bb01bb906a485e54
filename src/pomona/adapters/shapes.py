"""The shapes of an adapter's modules, without reading the tensors of an adapter in a folder.

Axes: I input features, O output features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping

from pomona.adapters.factors import Adapter, Factors


class ShapedFactors(Mapping[str, Factors]):
    """Factors whose shapes are known before they are read."""

    @abstractmethod
    def shape(self, module: str) -> tuple[int, int]:
        """(O, I) of a module, without reading its tensors."""


class _Renamed(ShapedFactors):
    """Factors in a folder, under other names."""

    def __init__(self, factors: ShapedFactors, names: Mapping[str, str]) -> None:
        self._factors = factors
        self._names = names

    def __getitem__(self, module: str) -> Factors:
        return self._factors[self._names[module]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, module: object) -> bool:
        return module in self._names

    def shape(self, module: str) -> tuple[int, int]:
        return self._factors.shape(self._names[module])


def renamed(factors: Mapping[str, Factors], names: Mapping[str, str]) -> Mapping[str, Factors]:
    """Factors under other names; nothing is read.

    Args:
        factors: factors by current name.
        names: new name -> current name, in order.
    """
    if isinstance(factors, ShapedFactors):
        return _Renamed(factors, names)
    return {new: factors[present] for new, present in names.items()}


def shape_of(adapter: Adapter, module: str) -> tuple[int, int]:
    """(O, I) of one module; from the header if the adapter is in a folder."""
    if isinstance(adapter.factors, ShapedFactors):
        return adapter.factors.shape(module)
    factors = adapter[module]
    return factors.out_features, factors.in_features


def show_shape(shape: tuple[int, int], *, embedding: bool) -> str:
    """The text for a weight whose factors have this (O, I), in messages."""
    if embedding:
        return f"an embedding of {shape[1]} x {shape[0]} (vocabulary x hidden)"
    return f"a weight of {shape[0]} x {shape[1]} (out x in)"
