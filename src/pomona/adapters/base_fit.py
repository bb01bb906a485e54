"""Does an adapter fit a base model's folder? From the headers of its weights alone: no tensor is read.

Axes: I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pomona.adapters.compatible import nearest, shape_of, show_shape
from pomona.adapters.config import read_json_object
from pomona.adapters.experts import Expert, expert_of
from pomona.adapters.export.base import CONFIG, EMBEDDINGS, last_part, stored_transposed
from pomona.adapters.export.checkpoint import Checkpoint, Stored, read_checkpoint
from pomona.adapters.export.expert_weights import homes_of
from pomona.adapters.factors import Adapter
from pomona.adapters.targets import HEAD
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

# Model types whose linear modules are transformers' Conv1D, which keeps its weight as [I, O].
# What quantisers put in the place of `<module>.weight`.
_PACKED = ("qweight", "weight_packed")


class BaseFolder(NamedTuple):
    """A base model's folder: its `config.json` (empty where there is none) and the headers of its safetensors files."""

    folder: Path
    config: Mapping[str, object]
    checkpoint: Checkpoint


class Misfit(NamedTuple):
    """Why modules do not fit, or why it cannot be told, in one line, and about how many modules that is."""

    level: Literal["error", "warning"]
    message: str
    modules: int


class _Doubt(NamedTuple):
    """One module's misfit before those of one kind are put together: `message` is about this module."""

    level: Literal["error", "warning"]
    kind: str
    message: str


def read_base_folder(path: Path | str) -> BaseFolder:
    """Open a Hugging Face folder.

    Raises:
        InputError: no such folder; no safetensors files in it, or broken ones.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise InputError(problem, file=path, mend=f"Give the base model's folder, with {CONFIG} and its safetensors files")
    config = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return BaseFolder(folder, config, read_checkpoint(folder))


def misfits(adapter: Adapter, base: BaseFolder) -> list[Misfit]:
    """Compare the shape of every module's update with that of the weight in the base's files.

    Module `m` is held against the tensor `m.weight`, or the only one that is called so but for words before it; a head that the
    files lack against the embedding that it is tied to. Weights are [O, I]; [I, O] for embeddings and for `fan_in_fan_out`.

    Returns:
        Errors (a module that the base does not have, another shape, another vocabulary) and warnings (quantised weights, names
        that cannot be matched), one of each kind, with the first module that it is about; none where all fit.
    """
    found: dict[str, list[_Doubt]] = {}
    for module in adapter:
        doubt = _doubt(adapter, module, base)
        if doubt is not None:
            found.setdefault(doubt.kind, []).append(doubt)
    return [_together(doubts) for doubts in found.values()]


def _together(doubts: list[_Doubt]) -> Misfit:
    rest = len(doubts) - 1
    more = f"; so {rest} more module{'s' if rest > 1 else ''}" if rest else ""
    return Misfit(doubts[0].level, f"{doubts[0].message}{more}", len(doubts))


def _doubt(adapter: Adapter, module: str, base: BaseFolder) -> _Doubt | None:
    tensors = base.checkpoint.tensors
    expert = expert_of(module)
    if expert is not None:
        return _expert_doubt(expert, shape_of(adapter, module), base)
    try:
        name = base.checkpoint.name_of(module)
    except InputError:
        return _Doubt("warning", "ambiguous", f"{module}: several tensors could be its weight, so shapes cannot be compared")
    stored = tensors[name] if name else _tied_embedding(module, base)
    if stored is None:
        return _missing(module, base)
    shape, embedding = shape_of(adapter, module), module in adapter.embeddings
    if stored.shape == (shape[::-1] if stored_transposed(adapter, module, base.config.get("model_type")) else shape):
        return None
    if stored.dtype not in DTYPES:
        return _quantised(module, stored.dtype)
    if embedding and len(stored.shape) == 2 and stored.shape[1] == shape[0]:
        message = f"{module}: adapts an embedding of a vocabulary of {shape[1]}, but the base's has {stored.shape[0]} tokens"
        return _Doubt("error", "vocabulary", message)
    has = " x ".join(map(str, stored.shape))
    message = f"{module}: adapts {show_shape(shape, embedding=embedding)}, but the base's weight is stored as {has}"
    return _Doubt("error", "shape", message)


def _expert_doubt(expert: Expert, shape: tuple[int, int], base: BaseFolder) -> _Doubt | None:
    if homes_of(expert, shape, base.checkpoint, base.config.get("model_type")):
        return None
    if expert.parameter not in base.checkpoint.tensors:
        message = f"{expert.path}: the base's files have it under another name, if at all, so shapes cannot be compared"
        return _Doubt("warning", "expert's name", message)
    has = " x ".join(map(str, base.checkpoint.tensors[expert.parameter].shape))
    wanted = f"{expert.total} x " if expert.total > 1 else ""
    message = f"{expert.path}: adapts {wanted}{shape[0]} x {shape[1]} (experts x out x in), but the base's tensor is {has}"
    return _Doubt("error", "expert's shape", message)


def _tied_embedding(module: str, base: BaseFolder) -> Stored | None:
    """For a head that is not in the files: the embedding, [vocabulary, hidden] as the head's own weight would be."""
    if last_part(module) != HEAD:
        return None
    found = [stored for name, stored in base.checkpoint.tensors.items() if last_part(name.removesuffix(".weight")) in EMBEDDINGS]
    return found[0] if len(found) == 1 else None


def _missing(module: str, base: BaseFolder) -> _Doubt:
    names = base.checkpoint.tensors
    if any(f"{module}.{packed}" in names for packed in _PACKED):
        return _quantised(module, "packed")
    tail = _from_layer(module)
    if tail and any(name.endswith(f".{tail}.weight") for name in names):
        message = f"{module}: the base's files have it under another name, so shapes cannot be compared"
        return _Doubt("warning", "name", message)
    known = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    return _Doubt("error", "missing", f"{module}: the base model has no such module. {nearest(module, known)}")


def _quantised(module: str, how: str) -> _Doubt:
    return _Doubt("warning", "quantised", f"{module}: the base's weight is quantised ({how}), so shapes cannot be compared")


def _from_layer(module: str) -> str | None:
    """The path from the last word before its first number on: `layers.3.self_attn.q_proj`."""
    parts = module.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdecimal()), 0)
    return ".".join(parts[first - 1 :]) if first else None
