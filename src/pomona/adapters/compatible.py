"""Do these adapters fit each other and this model? Every misfit is one precise error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pomona.adapters.carried import task_warnings
from pomona.adapters.experts import SINGLE, clash, expert_of
from pomona.adapters.factors import Adapter
from pomona.adapters.read import FolderFactors
from pomona.adapters.same_base import Base, base_warnings
from pomona.errors import InputError

_OWN_BASE = "Use the base model that it was trained on"
_FOLD = "Add it to its base with `pomona export --for merged` and use that model; merge, inspect and check take it as it is"


class _Weight(NamedTuple):
    """What a module's factors act on: an embedding of I = vocabulary and O = hidden size, or a linear weight [O, I]."""

    shape: tuple[int, int]
    embedding: bool

    def __str__(self) -> str:
        return show_shape(self.shape, embedding=self.embedding)


def check_compatible(
    adapters: Sequence[Adapter], shapes: Mapping[str, tuple[int, int]] | None = None, base_model: Base | str | None = None
) -> list[str]:
    """Check that adapters fit each other, and the model if its shapes are given. Reads no tensors of adapters that are in folders.

    Args:
        adapters: one or more.
        shapes: module path -> (O, I) of the model's linear modules, whatever the layout in which it stores them; None: no model.
        base_model: the model's name or path, or also what identifies it; None: not known.

    Returns:
        Warnings: those of the adapters that are in folders, base models, tasks or revisions that contradict each other,
        adapters that share no module.

    Raises:
        InputError: a module that the model does not have, an embedding where one of them or the model has a linear module, or a
            shape that differs; names adapter, module, both shapes, the mend.
    """
    seen: dict[str, tuple[_Weight, str]] = {}
    for place, adapter in enumerate(adapters):
        name = adapter_name(adapter, place)
        for module in adapter:
            weight = _Weight(shape_of(adapter, module), module in adapter.embeddings)
            if shapes is not None:
                _check_model(name, module, weight, shapes, adapter.base_model)
            first, first_name = seen.setdefault(module, (weight, name))
            if weight != first:
                problem = f"adapts {weight}, but {first_name} adapts {first}"
                raise InputError(problem, file=name, field=module, mend="Merge adapters of one base model only")
    _check_clash({module: name for module, (_, name) in seen.items()})
    named = [(adapter_name(adapter, place), adapter) for place, adapter in enumerate(adapters)]
    return [
        *_own_warnings(adapters),
        *base_warnings(named, Base(base_model) if isinstance(base_model, str) else base_model),
        *task_warnings(named),
        *_overlap_warnings(adapters),
    ]


def adapter_name(adapter: Adapter, place: int) -> str:
    """How messages call an adapter: the path it was read from, or its place among the given ones, counted from 1."""
    return str(adapter.provenance.get("path", f"adapter {place + 1}"))


def shape_of(adapter: Adapter, module: str) -> tuple[int, int]:
    """(O, I) of one module; from the header where the adapter is in a folder."""
    if isinstance(adapter.factors, FolderFactors):
        return adapter.factors.shape(module)
    factors = adapter[module]
    return factors.out_features, factors.in_features


def show_shape(shape: tuple[int, int], *, embedding: bool) -> str:
    """How messages call a weight of which the factors have this (O, I)."""
    if embedding:
        return f"an embedding of {shape[1]} x {shape[0]} (vocabulary x hidden)"
    return f"a weight of {shape[0]} x {shape[1]} (out x in)"


def own_warnings(adapter: Adapter) -> list[str]:
    """What reading its folder gave to say; none of an adapter that was made in memory, whose provenance has other warnings."""
    warnings = adapter.provenance.get("warnings") if isinstance(adapter.factors, FolderFactors) else None
    return [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def nearest(module: str, known: Iterable[str]) -> str:
    """What to do about a module that a model does not have, with the nearest name only: all of them would be a very long line."""
    near = difflib.get_close_matches(module, known, n=1)
    return f"{_OWN_BASE}; its nearest name here is {near[0]}" if near else _OWN_BASE


def _check_model(name: str, module: str, weight: _Weight, shapes: Mapping[str, tuple[int, int]], trained_on: str | None) -> None:
    if weight.embedding:
        problem = "adapts an embedding, and only factors of linear modules can be attached to the model"
        raise InputError(problem, file=name, field=module, mend="Take the embedding's factors out, or train it again without them")
    if expert_of(module) is not None:
        problem = "adapts a parameter that is no linear module (target_parameters), and only linear modules can be attached"
        raise InputError(problem, file=name, field=module, mend=_FOLD)
    if module not in shapes and SINGLE.fullmatch(module):
        problem = "adapts a single expert, and this version of transformers keeps all experts of a layer in one tensor"
        raise InputError(problem, file=name, field=module, mend=_FOLD)
    if module not in shapes:
        raise InputError("the model has no such linear module", file=name, field=module, mend=nearest(module, shapes))
    if shapes[module] != weight.shape:
        has = show_shape(shapes[module], embedding=False).removeprefix("a weight of ")
        origin = f", {trained_on}" if trained_on else ""
        raise InputError(f"adapts {weight}, but the model's is {has}", file=name, field=module, mend=f"{_OWN_BASE}{origin}")


def _check_clash(owners: Mapping[str, str]) -> None:
    twice = clash(owners)
    if twice is None:
        return
    first, second = sorted(twice, key=list(owners).index)
    between = f"but {owners[first]} adapts {first}" if owners[first] != owners[second] else f"and it adapts {first} too"
    problem = (
        f"is the same weight for PEFT, {between}"
        if expert_of(first) is None or expert_of(second) is None
        else (f"has another number of experts, {between}")
    )
    raise InputError(problem, file=owners[second], field=second, mend="Merge adapters of one base model and one spelling only")


def _own_warnings(adapters: Sequence[Adapter]) -> list[str]:
    return [f"{adapter_name(one, place)}: {warning}" for place, one in enumerate(adapters) for warning in own_warnings(one)]


def _overlap_warnings(adapters: Sequence[Adapter]) -> list[str]:
    if len(adapters) < 2 or set.intersection(*(set(adapter) for adapter in adapters)):
        return []
    return ["no module is adapted by all of the adapters: most of the merge is each adapter's own"]
