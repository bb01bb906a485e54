"""Export an adapter by the name of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pomona.adapters.base_modules import BaseModules
from pomona.adapters.export.base import read_base
from pomona.adapters.export.base_folder import fitted
from pomona.adapters.export.llama_cpp import export_llama_cpp
from pomona.adapters.export.merged import export_merged
from pomona.adapters.export.peft import export_peft
from pomona.adapters.export.result import Export
from pomona.adapters.export.vllm import export_vllm
from pomona.adapters.factors import Adapter
from pomona.errors import InputError, suggest


@dataclass(frozen=True)
class _Given:
    """The base model's folder or file and the table of its modules, if they are known."""

    base: Path | None
    modules: BaseModules | None
    dtype: torch.dtype | None
    force: bool


_Exporter = Callable[[Adapter, Path, _Given], Export]


def _peft(adapter: Adapter, output: Path, given: _Given) -> Export:
    return export_peft(_fitted(adapter, given), output, given.base, dtype=given.dtype, force=given.force)


def _vllm(adapter: Adapter, output: Path, given: _Given) -> Export:
    base = read_base(given.base, sizes=False) if given.base else None
    return export_vllm(_fitted(adapter, given), output, base, dtype=given.dtype, force=given.force)


def _llama_cpp(adapter: Adapter, output: Path, given: _Given) -> Export:
    base = read_base(_needed(given.base, adapter))
    return export_llama_cpp(_fitted(adapter, given), output, base, dtype=given.dtype, force=given.force)


def _merged(adapter: Adapter, output: Path, given: _Given) -> Export:
    dtype = given.dtype
    if dtype is not None:
        fix = "Leave it out: every tensor keeps its dtype in the base"
        raise InputError("is not for --for merged", field="--dtype", value=str(dtype).removeprefix("torch."), fix=fix)
    return export_merged(adapter, output, _needed(given.base, adapter), modules=given.modules, force=given.force)


EXPORTS: Mapping[str, _Exporter] = {"peft": _peft, "vllm": _vllm, "llama.cpp": _llama_cpp, "merged": _merged}

NEEDS_BASE = frozenset({"llama.cpp", "merged"})


def check_target(target: str) -> None:
    """Raise an `InputError` that lists all targets, if no export has this name."""
    if target not in EXPORTS:
        raise InputError("unknown target", field="--for", value=target, fix=suggest(target, EXPORTS))


def export_adapter(
    adapter: Adapter,
    target: str,
    output: Path | str,
    *,
    base: Path | str | None = None,
    modules: BaseModules | None = None,
    dtype: torch.dtype | None = None,
    force: bool = False,
) -> Export:
    """Write an adapter for another program.

    Args:
        adapter: the adapter; `compress` gives it a lower rank.
        target: `peft`, `vllm`, `llama.cpp` or `merged`.
        output: the new folder, or the new file for `llama.cpp`; it appears complete or not at all.
        base: the base model's folder, or for `llama.cpp` also its GGUF file; `merged` and `llama.cpp` need it.
        modules: the modules of the base model's class (`pomona.backbone.base_modules`). Without them the headers of the files are
            used, which do not always give a module's name and layout.
        dtype: dtype of the output, fp32, fp16 or bf16; not for `merged`.
        force: replace an existing output of the same kind.

    Raises:
        InputError: the target is unknown, the base is missing, or this kind of export refuses the adapter.
    """
    check_target(target)
    return EXPORTS[target](adapter, Path(output), _Given(None if base is None else Path(base), modules, dtype, force))


def _fitted(adapter: Adapter, given: _Given) -> Adapter:
    return adapter if given.base is None else fitted(adapter, given.base, given.modules)


def _needed(base: Path | None, adapter: Adapter) -> Path:
    if base is None:
        named = f", and {adapter.base_model!r} is no model folder here" if adapter.base_model else ""
        fix = "Give the model's folder, or for llama.cpp its GGUF file"
        raise InputError(f"this export needs the base model{named}", field="--base", fix=fix)
    return base
