"""A base model's folder: its `config.json`, the headers of its safetensors files, and its modules.

If the model's class is known, the names and kinds of the modules come from it (`pomona.backbone.base_modules`) and their shapes
from the files. Otherwise everything comes from the headers, which do not give the orientation of a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pomona.adapters.base_modules import BaseModule, BaseModules, first_error, place, respelled
from pomona.adapters.config import read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.checkpoint import Checkpoint, Stored, read_checkpoint
from pomona.adapters.factors import Adapter
from pomona.adapters.names import EMBEDDINGS, HEADS, last_part
from pomona.adapters.shapes import shape_of
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

# Model types whose linear modules are transformers' Conv1D, which stores its weight as [I, O].
_CONV1D = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
# Tensor names that quantisers write instead of `<module>.weight`.
_PACKED = (".qweight", ".weight_packed")
_EXPERT = re.compile(r".+\.experts\.\d+\.[^.]+")


@dataclass(frozen=True)
class BaseFolder:
    """A base model's folder.

    Args:
        folder: the folder.
        config: its `config.json`; empty if there is none.
        checkpoint: the headers of its safetensors files.
        modules: the table of its modules.
        tensors: parameter of the model -> name of its tensor in the files.
    """

    folder: Path
    config: Mapping[str, object]
    checkpoint: Checkpoint
    modules: BaseModules
    tensors: Mapping[str, str]

    def weight_of(self, path: str) -> str | None:
        """The name of the tensor with a module's weight; None if the files have none, as for a tied head."""
        return self.tensors.get(f"{path}.weight")


def read_base_folder(path: Path | str, table: BaseModules | None = None) -> BaseFolder:
    """Open a Hugging Face folder. Reads headers only.

    Args:
        path: the folder.
        table: the modules of the model's class, if it is known.

    Raises:
        InputError: there is no such folder, or its safetensors files are missing or damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise InputError(problem, file=path, fix=f"Give the base model's folder, with {CONFIG} and its safetensors files")
    config = read_json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    checkpoint = read_checkpoint(folder)
    return base_folder_of(folder, config, checkpoint, table)


def base_folder_of(
    folder: Path, config: Mapping[str, object], checkpoint: Checkpoint, table: BaseModules | None = None
) -> BaseFolder:
    """A base model's folder, from a config and headers that were already read."""
    if table is None:
        modules = _from_headers(checkpoint, config.get("model_type"))
        return BaseFolder(folder, config, checkpoint, modules, {name: name for name in checkpoint.tensors})
    tensors = {table.parameter(name) or name: name for name in checkpoint.tensors}
    return BaseFolder(folder, config, checkpoint, _with_files(table, checkpoint, tensors), tensors)


def stored_transposed(adapter: Adapter, module: str, base: BaseFolder) -> bool:
    """Whether a base stores a module's weight as [I, O], as for embeddings and Conv1D. The base decides, not the adapter's config.

    Args:
        adapter: the adapter.
        module: a path in the adapter, which the base has (`misfit`).
        base: the base model's folder.

    Raises:
        InputError: the class of the base is unknown, the matrix is square, and the adapter's config says Conv1D.
    """
    path = place(adapter, module, base.modules) or module
    kind, shape = base.modules.modules[path].kind, base.modules.modules[path].shape
    if kind not in {"matrix", "packed"}:
        return kind in {"embedding", "conv1d"}
    if module in adapter.embeddings or not adapter.provenance.get("fan_in_fan_out"):
        return module in adapter.embeddings
    if shape[0] != shape[1]:
        return shape != shape_of(adapter, module)
    problem = "is square, and the orientation in the base is unknown, because transformers does not know the base's class"
    fix = "Correct fan_in_fan_out in the adapter's config if these are nn.Linear modules"
    raise InputError(problem, file=base.folder, field=module, fix=fix)


def fitted(adapter: Adapter, base: Path, table: BaseModules | None = None) -> Adapter:
    """The adapter with the module names of a base model. Reads headers only.

    Args:
        adapter: the adapter to use with the base.
        base: the base's folder; without a known class and safetensors files, the adapter is returned unchanged.
        table: the modules of the base's class, if it is known.

    Raises:
        InputError: a module does not fit (`misfit`).
    """
    try:
        modules = read_base_folder(base, table).modules
    except InputError:
        modules = table
    if modules is None:
        return adapter
    if (error := first_error(adapter, modules)) is not None:
        module, found = error
        raise InputError(found.problem, file=base, field=module, fix=found.fix)
    return respelled(adapter, modules)


def _with_files(table: BaseModules, checkpoint: Checkpoint, tensors: Mapping[str, str]) -> BaseModules:
    """The table with the shapes of the files, and with the single experts that transformers stacks during loading."""
    modules = dict(table.modules)
    for parameter, name in tensors.items():
        path, stored = parameter.removesuffix(".weight"), checkpoint.tensors[name]
        if len(stored.shape) != 2 or not parameter.endswith(".weight"):
            continue
        if path not in modules and _EXPERT.fullmatch(path):
            modules[path] = BaseModule("linear", _pair(stored))
        elif path in modules and stored.dtype in DTYPES and modules[path].kind in {"linear", "conv1d", "embedding"}:
            kind = modules[path].kind
            modules[path] = BaseModule(kind, _pair(stored) if kind == "linear" else _turned(stored))
    return replace(table, modules=modules)


def _from_headers(checkpoint: Checkpoint, model_type: object) -> BaseModules:
    modules: dict[str, BaseModule] = {}
    for name, stored in checkpoint.tensors.items():
        packed = next((end for end in _PACKED if name.endswith(end)), None)
        if packed is not None:
            modules[name.removesuffix(packed)] = BaseModule("packed", note="packed")
        elif name.endswith(".weight") and len(stored.shape) == 2:
            modules[name.removesuffix(".weight")] = _from_header(name.removesuffix(".weight"), stored, model_type)
        elif ".experts." in name and len(stored.shape) == 3:
            modules[name] = BaseModule("experts", _pair(stored), experts=stored.shape[0])
    if not any(last_part(path) in HEADS for path in modules):
        tied = [module.shape for path, module in modules.items() if last_part(path) in EMBEDDINGS]
        if len(tied) == 1:
            hidden, vocabulary = tied[0]
            modules["lm_head"] = BaseModule("linear", (vocabulary, hidden))
    firsts = {path.partition(".")[0] for path in modules}

    def saved_without_head(module: str) -> str:
        """Whether all names lack their first part, as in the files of a model that was saved without its head."""
        first, _, rest = module.partition(".")
        return rest if first not in firsts else module

    heads = frozenset(path for path in modules if last_part(path) in HEADS)
    return BaseModules(modules, saved_without_head, heads=heads, exact=False)


def _from_header(path: str, stored: Stored, model_type: object) -> BaseModule:
    pair, last = _pair(stored), last_part(path)
    if stored.dtype not in DTYPES:
        return BaseModule("packed", pair, stored.dtype)
    if last in EMBEDDINGS:
        return BaseModule("embedding", _turned(stored))
    if last in HEADS:
        return BaseModule("linear", pair)
    return BaseModule("conv1d", _turned(stored)) if model_type in _CONV1D else BaseModule("matrix", pair)


def _pair(stored: Stored) -> tuple[int, int]:
    """The last two axes, (rows, columns)."""
    rows, columns = stored.shape[-2:]
    return rows, columns


def _turned(stored: Stored) -> tuple[int, int]:
    rows, columns = _pair(stored)
    return columns, rows
