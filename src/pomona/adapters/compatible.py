"""Do these adapters fit each other and this model? Every misfit is one precise error."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pomona.adapters.factors import Adapter
from pomona.adapters.folder import FolderFactors
from pomona.errors import InputError


def check_compatible(
    adapters: Sequence[Adapter], shapes: Mapping[str, tuple[int, int]] | None = None, base_model: str | None = None
) -> list[str]:
    """Check that adapters fit each other, and the model if its shapes are given. Reads no tensors of adapters that are in folders.

    Args:
        adapters: one or more.
        shapes: module path -> (O, I) of the model's linear modules, whatever the layout in which it stores them; None: no model.
        base_model: the model's name or path, if known.

    Returns:
        Warnings: base model names that contradict each other, adapters that share no module.

    Raises:
        InputError: a module that the model does not have, or a shape that differs; names adapter, module, both shapes, the mend.
    """
    seen: dict[str, tuple[tuple[int, int], str]] = {}
    for place, adapter in enumerate(adapters):
        name = adapter_name(adapter, place)
        for module in adapter:
            shape = shape_of(adapter, module)
            if shapes is not None:
                _check_model(name, module, shape, shapes, adapter.base_model)
            first_shape, first_name = seen.setdefault(module, (shape, name))
            if shape != first_shape:
                problem = f"adapts a weight of {_show(shape)}, but {first_name} one of {_show(first_shape)}"
                raise InputError(problem, file=name, field=module, mend="Merge adapters of one base model only")
    return [*_base_model_warnings(adapters, base_model), *_overlap_warnings(adapters)]


def adapter_name(adapter: Adapter, place: int) -> str:
    """How messages call an adapter: the path it was read from, or its place among the given ones, counted from 1."""
    return str(adapter.provenance.get("path", f"adapter {place + 1}"))


def shape_of(adapter: Adapter, module: str) -> tuple[int, int]:
    """(O, I) of one module; from the header where the adapter is in a folder."""
    if isinstance(adapter.factors, FolderFactors):
        return adapter.factors.shape(module)
    factors = adapter[module]
    return factors.out_features, factors.in_features


def _check_model(
    name: str, module: str, shape: tuple[int, int], shapes: Mapping[str, tuple[int, int]], trained_on: str | None
) -> None:
    if module not in shapes:
        raise InputError("the model has no such linear module", file=name, field=module, mend=_nearest(module, shapes))
    if shapes[module] != shape:
        problem = f"adapts a weight of {_show(shape)}, but the model's is {_show(shapes[module])}"
        origin = f", {trained_on}" if trained_on else ""
        raise InputError(problem, file=name, field=module, mend=f"Use the base model that it was trained on{origin}")


def _nearest(module: str, shapes: Mapping[str, tuple[int, int]]) -> str:
    """The nearest name only: all modules of a model would be a very long line."""
    near = difflib.get_close_matches(module, shapes, n=1)
    return (
        f"Use the base model that it was trained on; its nearest name here is {near[0]}"
        if near
        else "Use the base model that it was trained on"
    )


def _show(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]} (out x in)"


def _base_model_warnings(adapters: Sequence[Adapter], base_model: str | None) -> list[str]:
    named = [(adapter_name(adapter, place), adapter.base_model) for place, adapter in enumerate(adapters)]
    named = [("the model", base_model), *named]
    known = [(name, base) for name, base in named if base]
    return [
        f"{name} was trained on {base!r}, but {known[0][0]} is {'' if base_model else 'for '}{known[0][1]!r}"
        for name, base in known[1:]
        if _last_part(base) != _last_part(known[0][1])
    ]


def _last_part(name: str) -> str:
    """`meta-llama/Llama-3-8B` and `/models/llama-3-8b/` name one model."""
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()


def _overlap_warnings(adapters: Sequence[Adapter]) -> list[str]:
    if len(adapters) < 2 or set.intersection(*(set(adapter) for adapter in adapters)):
        return []
    return ["no module is adapted by all of the adapters: most of the merge is each adapter's own"]
