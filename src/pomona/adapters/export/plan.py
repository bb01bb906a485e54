"""The assignment of module updates to tensors of a merged model, and whether its output head and embedding are untied.

Axes: I input features, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pomona.adapters.base_modules import first_error, place
from pomona.adapters.experts import Expert, expert_of
from pomona.adapters.export.base import ARCHITECTURES
from pomona.adapters.export.base_folder import BaseFolder, stored_transposed
from pomona.adapters.export.checkpoint import Checkpoint, Stored
from pomona.adapters.export.expert_weights import homes_of
from pomona.adapters.factors import Adapter
from pomona.adapters.full_tensors import info_of, is_copy
from pomona.adapters.names import EMBEDDINGS, HEADS, last_part
from pomona.adapters.shapes import shape_of
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

_OTHER_BASE = "Give the base model that it was trained on as --base"


@dataclass(frozen=True)
class Planned:
    """One tensor of the merged model.

    Args:
        source: the tensor of the base.
        module: the module whose update is added; None: the tensor is unchanged.
        transposed: whether it is stored as [I, O].
        rows: range of the rows of B that are added; None: all.
        slabs: expert -> plan of its matrix, in a tensor of all experts; the other experts are unchanged.
        whole: path of the parameter whose whole tensor in the adapter replaces this one; None: nothing replaces it.
        shape: shape of the replacement.
    """

    source: Stored
    module: str | None = None
    transposed: bool = False
    rows: tuple[int, int] | None = None
    slabs: Mapping[int, Planned] = field(default_factory=dict)
    whole: str | None = None
    shape: tuple[int, ...] = ()

    def layout(self) -> tuple[str, tuple[int, ...], int]:
        """The header entry of the tensor: the base's dtype, the shape, and the number of bytes."""
        if self.whole is None:
            return self.source.dtype, self.source.shape, self.source.nbytes
        return self.source.dtype, self.shape, math.prod(self.shape) * DTYPES[self.source.dtype].itemsize


def plan_merge(adapter: Adapter, base: BaseFolder) -> tuple[dict[str, dict[str, Planned]], bool]:
    """Plan the update of each tensor of a base model. Reads headers only.

    Args:
        adapter: the adapter to add.
        base: the base model's folder.

    Returns:
        File -> name -> plan of the tensor; and whether a tied head and embedding are untied.

    Raises:
        InputError: the base lacks a module, or has it with another kind or shape, or its weight is quantised or not in the files.
    """
    checkpoint = base.checkpoint
    if (error := first_error(adapter, base.modules)) is not None:
        module, found = error
        raise InputError(found.problem, file=base.folder, field=module, fix=found.fix)
    paths = {module: place(adapter, module, base.modules) or module for module in adapter}
    planned = {name: Planned(stored) for name, stored in checkpoint.tensors.items()}
    tied = _is_tied(base)
    untied = tied and (any(last_part(path) in HEADS | EMBEDDINGS for path in paths.values()) or _whole_untie(adapter))
    if untied:
        named = [*paths.values(), *map(_module, adapter.whole)]
        head = next((path for path in named if last_part(path) in HEADS), "lm_head")
        name = base.weight_of(head) or f"{head}.weight"
        # Even if the files contain a head: a tied model ignores it.
        planned[name] = Planned(_embedding(checkpoint))
    for module, path in paths.items():
        expert = expert_of(module)
        if expert is not None:
            _plan_expert(adapter, expert, planned, base)
            continue
        name = base.weight_of(path) or f"{path}.weight"
        if name not in planned:
            raise InputError(_not_there(path, base), file=base.folder, field=module, fix=_OTHER_BASE)
        source = planned[name].source
        _check_dtype(source, module)
        planned[name] = Planned(source, module, stored_transposed(adapter, module, base))
    for parameter in adapter.whole:
        at = parameter
        if tied and not untied and last_part(_module(parameter)) in HEADS:
            at = _embedding_name(checkpoint)  # the one tensor of both
        name, replaced = _replaced(adapter, parameter, at, planned, base)
        planned[name] = replaced
    files: dict[str, dict[str, Planned]] = {}
    for name, one in planned.items():
        home = checkpoint.tensors.get(name, one.source).file.name
        files.setdefault(home, {})[name] = one
    return files, untied


def _plan_expert(adapter: Adapter, expert: Expert, planned: dict[str, Planned], base: BaseFolder) -> None:
    shape = shape_of(adapter, expert.path)
    homes = homes_of(expert, shape, base.checkpoint, base.config.get("model_type"))
    if not homes:
        problem = (
            f"adapts {expert.total} x {shape[0]} x {shape[1]} (experts x out x in), and the base's files have neither one tensor "
            "of this name and size nor a matrix an expert"
        )
        raise InputError(problem, file=base.folder, field=expert.parameter, fix=_OTHER_BASE)
    for home in homes:
        _check_dtype(home.source, expert.path)
        one = Planned(home.source, expert.path, home.transposed, (home.first, home.last))
        whole = planned[home.name]
        planned[home.name] = one if home.slab is None else replace(whole, slabs={**whole.slabs, home.slab: one})


def _module(parameter: str) -> str:
    return parameter.removesuffix(".weight")


def _vocabulary_tensors(adapter: Adapter) -> list[str]:
    return [name for name in adapter.whole if name.endswith(".weight") and last_part(_module(name)) in HEADS | EMBEDDINGS]


def _whole_untie(adapter: Adapter) -> bool:
    """Whether the whole tensors of an adapter separate a tied head from the embedding.

    A trained module of `modules_to_save` is a copy, so the other module does not change with it. Tensors that were only saved are
    loaded into the parameter itself, which a tied model has once.
    """
    brought = _vocabulary_tensors(adapter)
    if len(brought) == 2:
        one, two = (adapter.whole[name] for name in brought)
        return not is_copy(one, two)
    saved = adapter.provenance.get("modules_to_save")
    return bool(brought) and isinstance(saved, list) and any(_module(brought[0]).endswith(name) for name in saved)


def _replaced(adapter: Adapter, parameter: str, at: str, planned: Mapping[str, Planned], base: BaseFolder) -> tuple[str, Planned]:
    """The tensor of the base that a whole tensor replaces; only embeddings and heads may have another number of rows."""
    module, _, kind = at.rpartition(".")
    path = base.modules.find(module) or module
    name = at if at in planned else base.tensors.get(f"{path}.{kind}")
    if name is None:
        task = adapter.provenance.get("task_type")
        problem = f"the adapter brings this tensor whole{f', for {task},' if task else ''} and the base model has none of the name"
        raise InputError(problem, file=base.folder, field=parameter, fix=_OTHER_BASE)
    source, shape = planned[name].source, info_of(adapter, parameter).shape
    if source.dtype not in DTYPES:
        raise InputError("is not fp32, fp16 or bf16", file=source.file, field=parameter, value=source.dtype, fix=_OTHER_BASE)
    resized = last_part(module) in HEADS | EMBEDDINGS and len(shape) == len(source.shape) and shape[1:] == source.shape[1:]
    if shape != source.shape and not resized:
        problem = f"the adapter brings a tensor of {' x '.join(map(str, shape))}, but the base's is "
        raise InputError(problem + " x ".join(map(str, source.shape)), file=source.file, field=parameter, fix=_OTHER_BASE)
    return name, Planned(source, whole=parameter, shape=shape)


def vocabulary(adapter: Adapter) -> int | None:
    """The number of rows of the whole embedding or head in an adapter; None if it has neither.

    Raises:
        InputError: the two have different numbers of rows.
    """
    rows = {name: info_of(adapter, name).shape[0] for name in _vocabulary_tensors(adapter)}
    if len(set(rows.values())) > 1:
        path = adapter.provenance.get("path")
        told = " and ".join(f"{name} {count}" for name, count in rows.items())
        raise InputError(
            f"{told} rows contradict each other", file=None if path is None else str(path), fix="Save the adapter again"
        )
    return next(iter(rows.values()), None)


def _not_there(path: str, base: BaseFolder) -> str:
    if any(name.startswith(f"{path}.") for name in base.checkpoint.tensors):
        return (
            "the base model's files have this weight in another form, such as a quantised one, and an update cannot be added to it"
        )
    return "the base model's files have no such weight"


def _is_tied(base: BaseFolder) -> bool:
    config = base.config
    for level in (config, config.get("text_config")):
        if isinstance(level, Mapping) and isinstance(level.get("tie_word_embeddings"), bool):
            return bool(level["tie_word_embeddings"])
    names = config.get("architectures")
    known = ARCHITECTURES.get(str(names[0])) if isinstance(names, list) and names else None
    if known is not None:
        return known.tied
    return not any(last_part(name.removesuffix(".weight")) in HEADS for name in base.checkpoint.tensors)


def _embedding(checkpoint: Checkpoint) -> Stored:
    return checkpoint.tensors[_embedding_name(checkpoint)]


def _embedding_name(checkpoint: Checkpoint) -> str:
    found = [name for name in checkpoint.tensors if last_part(name.removesuffix(".weight")) in EMBEDDINGS]
    if len(found) != 1:
        problem = f"has {len(found)} token embeddings, so it cannot be seen what its output head is tied to"
        raise InputError(problem, file=checkpoint.folder, fix=_OTHER_BASE)
    return found[0]


def _check_dtype(source: Stored, module: str) -> None:
    if source.dtype not in DTYPES:
        problem = "is not fp32, fp16 or bf16, and an update cannot be added to it"
        fix = "Give the model before it was quantised"
        raise InputError(problem, file=source.file, field=module, value=source.dtype, fix=fix)


def resulting_config(
    config: Mapping[str, object], files: Mapping[str, Mapping[str, Planned]], rows: int | None, *, untied: bool
) -> dict[str, object]:
    """The `config.json` of the merged model, with its tying of head and embedding and its number of tokens.

    Raises:
        InputError: the adapter changes the number of rows of one of them only.
    """
    changed = dict(config)
    nested = config.get("text_config")
    inner = dict(nested) if isinstance(nested, dict) else {}
    if untied:
        changed["tie_word_embeddings"] = False
        if "tie_word_embeddings" in inner:
            inner["tie_word_embeddings"] = False
    level = inner if "vocab_size" in inner else changed
    if rows is not None and rows != level.get("vocab_size"):
        for name, one in ((name, one) for plan in files.values() for name, one in plan.items()):
            found = one.layout()[1][0] if one.layout()[1] else None
            if last_part(_module(name)) in HEADS | EMBEDDINGS and found != rows:
                problem = f"has {found} rows, but the adapter brings {rows} for the other of embedding and head"
                raise InputError(problem, file=one.source.file, field=name, fix=_OTHER_BASE)
        level["vocab_size"] = rows
    return {**changed, "text_config": inner} if inner else changed
