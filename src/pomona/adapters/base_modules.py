"""The modules of a base model, with paths and kinds, and the check, shared by all verbs, whether an adapter's module fits one.

The rule is PEFT's: it adapts a module with exactly this path, of a supported kind, and with the factors' shape.

Axes: I input features, O output features.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from pomona.adapters.experts import ROUTERS, SINGLE, expert_of
from pomona.adapters.factors import Adapter
from pomona.adapters.names import HEADS, last_part, older_spelling, older_spellings
from pomona.adapters.shapes import renamed, shape_of, show_shape

Kind = Literal["linear", "conv1d", "embedding", "experts", "matrix", "packed", "other"]
_WEIGHT = ".weight"
OWN_BASE = "Use the base model that it was trained on"


class BaseModule(NamedTuple):
    """One module of a base model.

    Args:
        kind: `linear` (weight [O, I]), `conv1d` (GPT-2's, weight [I, O]), `embedding`; `experts`, the stacked weights of a mixture;
            `matrix`, a weight that is known only from the file, with unknown orientation; `packed`, a quantised weight with
            unknown shape; `other`, a module that PEFT does not adapt.
        shape: (O, I); for an embedding (hidden size, vocabulary), as in factors; for a `matrix` the stored shape.
        note: for `packed`, the method; for `other`, its class.
        experts: for `experts`, their number; else 0.
    """

    kind: Kind
    shape: tuple[int, int] = (0, 0)
    note: str = ""
    experts: int = 0


def _same(name: str) -> str:
    return name


@dataclass(frozen=True, eq=False)
class BaseModules:
    """The modules of a base model, from the model itself, from its class and `config.json`, or from its files' headers alone.

    Args:
        modules: path -> module.
        translated: the path under which PEFT looks for an adapter's module, if it renames keys at loading.
        parameter: name of a tensor in the base's files -> name of the model's parameter; None: the tensor becomes a part of a
            parameter, or several parameters.
        heads: the paths of output heads.
        exact: whether the paths are those of the model; False if only the files' headers are known.
    """

    modules: Mapping[str, BaseModule]
    translated: Callable[[str], str] = _same
    parameter: Callable[[str], str | None] = _same
    heads: frozenset[str] = frozenset()
    exact: bool = True

    @functools.cached_property
    def _older(self) -> Mapping[str, str]:
        return {old: path for path in self.modules for old in older_spellings(path)}

    def find(self, module: str, *, was_older: bool = False) -> str | None:
        """The base's path of an adapter's module, spelled as in any version of transformers; None if there is no such module.

        It is the path itself, the path at which PEFT looks for it, or the module that transformers would load from this name.

        Args:
            module: its path in the adapter.
            was_older: whether its file has the older name (`Adapter.provenance["older_names"]`).
        """
        older = older_spelling(module)
        if older is None or not (was_older or not self.exact):
            return self._place(module)
        return self._place(older) if self.exact else self._place(module) or self._place(older)

    def _place(self, name: str) -> str | None:
        for path in (name, self.translated(name)):
            if path in self.modules:
                return path
        path = self._older.get(name)
        return path if path is not None and self.parameter(f"{name}.weight") == f"{path}.weight" else None


def place(adapter: Adapter, module: str, base: BaseModules) -> str | None:
    """The base's path of an adapter's module, or of the parameter that contains an expert; None if the base has neither."""
    names = adapter.provenance.get("older_names")
    was_older = isinstance(names, list | tuple) and module in names
    expert = expert_of(module)
    if expert is None:
        return base.find(module, was_older=was_older)
    found = base.find(expert.parameter, was_older=was_older)
    return found or base.find(expert.parameter.removesuffix(_WEIGHT), was_older=was_older)


class Misfit(NamedTuple):
    """The reason why a module does not fit, or why it is unknown.

    Args:
        level: an error, or a warning if it is unknown.
        kind: misfits of one kind are reported together.
        problem: the problem, in one line that follows the module's path.
        fix: the advice.
    """

    level: Literal["error", "warning"]
    kind: str
    problem: str
    fix: str = ""


def misfit(adapter: Adapter, module: str, base: BaseModules) -> Misfit | None:
    """The reason why PEFT would not adapt this module of the base with these factors, or None. Reads no tensors.

    Args:
        adapter: the adapter.
        module: its path in the adapter.
        base: the base model's modules.
    """
    path = place(adapter, module, base)
    if path is None and (single := SINGLE.fullmatch(module)) is not None and _takes_single(adapter, module, single, base):
        return None
    if path is None and expert_of(module) is not None and not base.exact:
        return None  # one matrix per expert, in files of transformers 4: the reader handles them
    if path is None:
        return Misfit("error", "missing", "the base model has no such module", nearest(module, base.modules))
    found = base.modules[path]
    shape, embedding = shape_of(adapter, module), module in adapter.embeddings
    if found.kind == "packed" and found.shape != shape:
        return Misfit("warning", "quantised", f"the base's weight is quantised ({found.note}), so shapes cannot be compared")
    if found.kind == "other" and not _is_router(module, path, found, shape):
        return Misfit("error", "kind", f"is a {found.note} in the base model, which PEFT does not adapt", OWN_BASE)
    expert = expert_of(module)
    if expert is not None and found.kind == "experts" and expert.total != found.experts:
        problem = f"is one of {expert.total} experts, but the base has {found.experts or 'none'} there"
        return Misfit("error", "experts", problem, OWN_BASE)
    if expert is None and found.kind == "experts":
        return Misfit("error", "kind", "is the weights of all experts in the base model, and no linear module", OWN_BASE)
    if embedding != (found.kind == "embedding") and found.kind not in {"matrix", "packed"}:
        there = "an embedding" if found.kind == "embedding" else "a linear module"
        problem = f"adapts {show_shape(shape, embedding=embedding)}, but the base has {there} there, and PEFT would pass over it"
        return Misfit("error", "kind", problem, OWN_BASE)
    if _fits(shape, found, embedding=embedding, turned=bool(adapter.provenance.get("fan_in_fan_out"))):
        return None
    return _other_shape(shape, found, embedding=embedding, head=last_part(path) in HEADS)


def _takes_single(adapter: Adapter, module: str, single: re.Match[str], base: BaseModules) -> bool:
    """Whether the base stores this linear module of one expert (of transformers 4) in one weight with the other experts."""
    O, I = shape_of(adapter, module)  # noqa: E741 (axes)
    names, rows = (("gate_up_proj", "gate_proj"), 2 * O) if single["name"] not in {"down_proj", "w2"} else (("down_proj",), O)
    experts = single["experts"].replace(".block_sparse_moe.", ".mlp.")  # Mixtral's, in transformers 4
    for name in names:
        path = base.find(f"{experts}.{name}")
        if path is not None and (found := base.modules[path]).kind == "experts":
            return int(single["number"]) < found.experts and {*found.shape} == {rows, I}
    return False


def _is_router(module: str, path: str, found: BaseModule, shape: tuple[int, int]) -> bool:
    """Whether PEFT adapts it as a bare parameter, which is how Pomona writes a router."""
    return found.shape == shape and (expert_of(module) is not None or last_part(path) in ROUTERS)


def _fits(shape: tuple[int, int], found: BaseModule, *, embedding: bool, turned: bool) -> bool:
    if found.kind == "matrix" and embedding:
        return found.shape == shape[::-1]
    either = found.kind == "experts" or (found.kind == "matrix" and turned)
    return found.shape == shape or (either and found.shape == shape[::-1])


def _other_shape(shape: tuple[int, int], found: BaseModule, *, embedding: bool, head: bool) -> Misfit:
    O, I = found.shape[::-1] if found.kind == "matrix" and embedding else found.shape  # noqa: E741 (axes)
    resized = "If tokens were added before the training, give the base with them; else use the base model that it was trained on"
    if embedding and shape[0] == O:
        problem = f"adapts an embedding of a vocabulary of {shape[1]}, but the base's has {I} tokens"
        return Misfit("error", "vocabulary", problem, resized)
    if head and shape[1] == I:
        problem = f"adapts an output head of a vocabulary of {shape[0]}, but the base's has {O} tokens"
        return Misfit("error", "vocabulary", problem, resized)
    has = show_shape((O, I), embedding=embedding).removeprefix("an embedding of ").removeprefix("a weight of ")
    if found.kind == "matrix" and not embedding:
        has = f"{O} x {I} as it is stored"
    return Misfit("error", "shape", f"adapts {show_shape(shape, embedding=embedding)}, but the base's is {has}", OWN_BASE)


def first_error(adapter: Adapter, base: BaseModules) -> tuple[str, Misfit] | None:
    """The module and misfit of the error for an adapter: a misfit of the vocabulary first, because it explains the others."""
    errors = [(module, found) for module in adapter if (found := misfit(adapter, module, base)) and found.level == "error"]
    return min(errors, key=lambda error: error[1].kind != "vocabulary", default=None)


def nearest(module: str, known: Iterable[str]) -> str:
    """The advice for a module that a model does not have, with only the nearest name, because all names would be too long."""
    near = difflib.get_close_matches(module, known, n=1)
    return f"{OWN_BASE}; its nearest name here is {near[0]}" if near else OWN_BASE


def _respelled(module: str, path: str | None) -> str:
    expert = expert_of(module)
    if path is None or expert is None:
        return path or module
    whole = expert.parameter.endswith(_WEIGHT) and not path.endswith(_WEIGHT)
    return expert._replace(parameter=f"{path}{_WEIGHT}" if whole else path).path


def respelled(adapter: Adapter, base: BaseModules) -> Adapter:
    """The adapter with the base's paths and layout; the same object if nothing changes. Reads no tensors.

    Modules that the base does not have keep their paths, so that `misfit` reports them. `fan_in_fan_out` is set as by PEFT: True
    if a module is a Conv1D.

    Args:
        adapter: the adapter to use with the base.
        base: its modules; if they are not exact, nothing is changed.
    """
    if not base.exact:
        return adapter
    paths = {module: _respelled(module, place(adapter, module, base)) for module in adapter}
    if len(set(paths.values())) < len(paths):
        return adapter
    provenance = {name: value for name, value in adapter.provenance.items() if name != "older_names"}
    kinds = {base.modules[path].kind for path in paths.values() if path in base.modules}
    if kinds:
        provenance["fan_in_fan_out"] = "conv1d" in kinds
    changed = replace(adapter, provenance=MappingProxyType(provenance))
    if all(module == path for module, path in paths.items()):
        return changed
    factors = renamed(adapter.factors, {path: module for module, path in paths.items()})
    return replace(changed, factors=factors, embeddings=frozenset(paths[module] for module in adapter.embeddings))
