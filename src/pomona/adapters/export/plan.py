"""Which tensor of a merged model gets which module's update, and whether its output head and token embedding come apart.

Axes: I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pomona.adapters.compatible import shape_of
from pomona.adapters.experts import Expert, expert_of
from pomona.adapters.export.base import ARCHITECTURES, EMBEDDINGS, HEADS, last_part, stored_transposed
from pomona.adapters.export.checkpoint import Checkpoint, Stored
from pomona.adapters.export.expert_weights import homes_of
from pomona.adapters.factors import Adapter
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

_OTHER_BASE = "Give the base model that it was trained on as --base"


@dataclass(frozen=True)
class Planned:
    """One tensor of the merged model.

    Args:
        source: the base's tensor that it starts from.
        module: the module whose update it gets; None: it stays as it is.
        transposed: whether it is stored as [I, O].
        rows: which of the rows of B it gets; None: all.
        slabs: of a tensor of all experts, expert -> what becomes of its matrix; the others stay as they are.
    """

    source: Stored
    module: str | None = None
    transposed: bool = False
    rows: tuple[int, int] | None = None
    slabs: Mapping[int, Planned] = field(default_factory=dict)


def plan_merge(
    adapter: Adapter, checkpoint: Checkpoint, config: Mapping[str, object]
) -> tuple[dict[str, dict[str, Planned]], bool]:
    """Which of a base model's tensors get an update. Reads headers only.

    Args:
        adapter: what is added.
        checkpoint: the base model's tensors.
        config: its `config.json`.

    Returns:
        File -> name -> what becomes of the tensor; and whether a tied head and embedding come apart.

    Raises:
        InputError: a module has no weight there, several, one of another shape, or one that is quantised.
    """
    planned = {name: Planned(stored) for name, stored in checkpoint.tensors.items()}
    untied = _is_tied(checkpoint, config) and any(last_part(module) in HEADS | EMBEDDINGS for module in adapter)
    if untied:
        head = next((module for module in adapter if last_part(module) in HEADS), "lm_head")
        name = checkpoint.name_of(head) or f"{head}.weight"
        # Even where the files hold a head of their own: a tied model never looks at it.
        planned[name] = Planned(_embedding(checkpoint))
    for module in adapter:
        expert = expert_of(module)
        if expert is not None:
            _plan_expert(adapter, expert, planned, checkpoint, config)
            continue
        name = f"{module}.weight" if f"{module}.weight" in planned else checkpoint.name_of(module)
        if name is None:
            raise InputError("the base model has no such weight", file=checkpoint.folder, field=module, mend=_OTHER_BASE)
        planned[name] = Planned(planned[name].source, module, stored_transposed(adapter, module, config.get("model_type")))
        _check_fit(adapter, module, planned[name])
    files: dict[str, dict[str, Planned]] = {}
    for name, one in planned.items():
        home = checkpoint.tensors.get(name, one.source).file.name
        files.setdefault(home, {})[name] = one
    return files, untied


def _plan_expert(
    adapter: Adapter, expert: Expert, planned: dict[str, Planned], checkpoint: Checkpoint, config: Mapping[str, object]
) -> None:
    shape = shape_of(adapter, expert.path)
    homes = homes_of(expert, shape, checkpoint, config.get("model_type"))
    if not homes:
        problem = (
            f"adapts {expert.total} x {shape[0]} x {shape[1]} (experts x out x in), and the base's files have neither one tensor "
            "of this name and size nor a matrix an expert"
        )
        raise InputError(problem, file=checkpoint.folder, field=expert.parameter, mend=_OTHER_BASE)
    for home in homes:
        _check_dtype(home.source, expert.path)
        one = Planned(home.source, expert.path, home.transposed, (home.first, home.last))
        whole = planned[home.name]
        planned[home.name] = one if home.slab is None else replace(whole, slabs={**whole.slabs, home.slab: one})


def _is_tied(checkpoint: Checkpoint, config: Mapping[str, object]) -> bool:
    for level in (config, config.get("text_config")):
        if isinstance(level, Mapping) and isinstance(level.get("tie_word_embeddings"), bool):
            return bool(level["tie_word_embeddings"])
    names = config.get("architectures")
    known = ARCHITECTURES.get(str(names[0])) if isinstance(names, list) and names else None
    if known is not None:
        return known.tied
    return not any(last_part(name.removesuffix(".weight")) in HEADS for name in checkpoint.tensors)


def _embedding(checkpoint: Checkpoint) -> Stored:
    found = [name for name in checkpoint.tensors if last_part(name.removesuffix(".weight")) in EMBEDDINGS]
    if len(found) != 1:
        problem = f"has {len(found)} token embeddings, so it cannot be seen what its output head is tied to"
        raise InputError(problem, file=checkpoint.folder, mend=_OTHER_BASE)
    return checkpoint.tensors[found[0]]


def _check_fit(adapter: Adapter, module: str, planned: Planned) -> None:
    source = planned.source
    _check_dtype(source, module)
    shape = shape_of(adapter, module)
    if source.shape != (shape[::-1] if planned.transposed else shape):
        axes = "(in x out)" if planned.transposed else "(out x in)"
        found = " x ".join(map(str, source.shape))
        problem = f"adapts a weight of {shape[0]} x {shape[1]} (out x in), but the base's is {found} {axes}"
        raise InputError(problem, file=source.file, field=module, mend=_OTHER_BASE)


def _check_dtype(source: Stored, module: str) -> None:
    if source.dtype not in DTYPES:
        problem = "is not fp32, fp16 or bf16, and an update cannot be added to it"
        mend = "Give the model before it was quantised"
        raise InputError(problem, file=source.file, field=module, value=source.dtype, mend=mend)


def untied_config(config: Mapping[str, object]) -> dict[str, object]:
    """The `config.json` of a model whose output head is no longer its token embedding."""
    changed = {**config, "tie_word_embeddings": False}
    inner = config.get("text_config")
    if isinstance(inner, dict) and "tie_word_embeddings" in inner:
        changed["text_config"] = {**inner, "tie_word_embeddings": False}
    return changed
