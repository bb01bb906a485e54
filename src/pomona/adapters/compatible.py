"""Check that adapters fit each other and a model, with one precise error for each misfit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pomona.adapters.base_modules import BaseModules, first_error, nearest, place
from pomona.adapters.carried_config import task_warnings
from pomona.adapters.experts import SINGLE, clash, expert_of
from pomona.adapters.factors import Adapter
from pomona.adapters.names import two_spellings
from pomona.adapters.same_base import Base, base_warnings
from pomona.adapters.shapes import ShapedFactors, shape_of, show_shape
from pomona.errors import InputError

_FOLD = "Add it to its base with `pomona export --for merged` and use that model; merge, inspect and check take it as it is"


class _Weight(NamedTuple):
    """The weight that a module's factors adapt: an embedding of I = vocabulary and O = hidden size, or a linear weight [O, I]."""

    shape: tuple[int, int]
    embedding: bool

    def __str__(self) -> str:
        return show_shape(self.shape, embedding=self.embedding)


def check_compatible(
    adapters: Sequence[Adapter], model: BaseModules | None = None, base_model: Base | str | None = None
) -> list[str]:
    """Check that adapters fit each other, and can be attached to the model if it is given. Reads no tensors of folders.

    Args:
        adapters: one or more.
        model: the modules of the model to which the adapters will be attached; None: no model.
        base_model: the model's name or path, optionally with its identity; None: unknown.

    Returns:
        Warnings: those of the adapters' folders, contradictory base models, tasks or revisions, and adapters without a common
        module.

    Raises:
        InputError: a module that the model does not have, or of another kind or shape, or to which no factors can be attached;
            shapes that differ between adapters; one module that may have two names. The error names adapter, module and fix.
    """
    seen: dict[str, tuple[_Weight, str]] = {}
    for number, adapter in enumerate(adapters):
        name = adapter_name(adapter, number)
        if model is not None:
            _check_model(name, adapter, model)
        for module in adapter:
            weight = _Weight(shape_of(adapter, module), module in adapter.embeddings)
            first, first_name = seen.setdefault(module, (weight, name))
            if weight != first:
                problem = f"adapts {weight}, but {first_name} adapts {first}"
                raise InputError(problem, file=name, field=module, fix="Merge adapters of one base model only")
    _check_clash({module: name for module, (_, name) in seen.items()})
    _check_spellings(adapters)
    named = [(adapter_name(adapter, number), adapter) for number, adapter in enumerate(adapters)]
    return [
        *_own_warnings(adapters),
        *base_warnings(named, Base(base_model) if isinstance(base_model, str) else base_model),
        *task_warnings(named),
        *_overlap_warnings(adapters),
    ]


def adapter_name(adapter: Adapter, place: int) -> str:
    """An adapter's name in messages: its path, or its number among the given adapters, from 1."""
    return str(adapter.provenance.get("path", f"adapter {place + 1}"))


def own_warnings(adapter: Adapter) -> list[str]:
    """The warnings from reading its folder; none for an adapter made in memory, whose provenance has other warnings."""
    warnings = adapter.provenance.get("warnings") if isinstance(adapter.factors, ShapedFactors) else None
    return [str(warning) for warning in warnings] if isinstance(warnings, list) else []


def _check_model(name: str, adapter: Adapter, model: BaseModules) -> None:
    """Check each module; in addition, only factors of linear modules other than the head can be attached."""
    for module in adapter:
        path = place(adapter, module, model)
        linear = path is not None and model.modules[path].kind in {"linear", "conv1d"}
        if module in adapter.embeddings or path in model.heads:
            what = "the output head" if path in model.heads else "an embedding"
            problem = f"adapts {what}, and only factors of linear modules within the model can be attached"
            raise InputError(problem, file=name, field=module, fix="Take its factors out, or train it again without them")
        if expert_of(module) is not None:
            problem = "adapts a parameter that is no linear module (target_parameters), and only linear modules can be attached"
            raise InputError(problem, file=name, field=module, fix=_FOLD)
        if not linear and SINGLE.fullmatch(module):
            problem = "adapts a single expert, and this version of transformers keeps all experts of a layer in one tensor"
            raise InputError(problem, file=name, field=module, fix=_FOLD)
        if not linear:
            fix = nearest(module, [path for path, one in model.modules.items() if one.kind in {"linear", "conv1d"}])
            raise InputError("the model has no such linear module", file=name, field=module, fix=fix)
    if (error := first_error(adapter, model)) is not None:
        module, found = error
        trained_on = f", {adapter.base_model}" if adapter.base_model else ""
        raise InputError(found.problem, file=name, field=module, fix=f"{found.fix}{trained_on}")


def _check_spellings(adapters: Sequence[Adapter]) -> None:
    for number, adapter in enumerate(adapters):
        for other_place, other in enumerate(adapters[:number]):
            if (pair := two_spellings(other, adapter)) is not None:
                problem = (
                    f"may be {pair[0]} of {adapter_name(other, other_place)}, under the name that another transformers gives it"
                )
                fix = "Give the base model, which decides: `pomona merge --base MODEL`"
                raise InputError(problem, file=adapter_name(adapter, number), field=pair[1], fix=fix)


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
    raise InputError(problem, file=owners[second], field=second, fix="Merge adapters of one base model and one spelling only")


def _own_warnings(adapters: Sequence[Adapter]) -> list[str]:
    return [f"{adapter_name(one, place)}: {warning}" for place, one in enumerate(adapters) for warning in own_warnings(one)]


def _overlap_warnings(adapters: Sequence[Adapter]) -> list[str]:
    if len(adapters) < 2 or set.intersection(*(set(adapter) for adapter in adapters)):
        return []
    return ["no module is adapted by all of the adapters: most of the merge is each adapter's own"]
