"""Convert other adapter formats and fine-tuned models into a plain LoRA folder."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from pomona.adapters.base_misfits import misfits
from pomona.adapters.base_modules import BaseModules, respelled
from pomona.adapters.config import CONFIG_FILE
from pomona.adapters.convert.difference import Kind, differences, kinds_of, plan_difference, task_of
from pomona.adapters.convert.dora import DoraParts, dora_deltas, find_weights
from pomona.adapters.convert.mlx import is_mlx, is_mlx_full, split_mlx
from pomona.adapters.convert.pickle import tensors_from_pickle
from pomona.adapters.convert.plain import Plain, named_as, split_peft, write_config
from pomona.adapters.convert.result import Approximation, Conversion, Dropped
from pomona.adapters.convert.source import Source, find_source
from pomona.adapters.convert.truncate import LARGE_ERROR, Limits, check_limits, factor_all
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.base_folder import BaseFolder, base_folder_of, read_base_folder
from pomona.adapters.export.checkpoint import read_checkpoint, read_file
from pomona.adapters.export.compress import compress
from pomona.adapters.factors import Adapter
from pomona.adapters.keys import TENSOR_FILE, keys_of
from pomona.adapters.new_folder import refuse_occupied
from pomona.adapters.quantised import refuse_codes, refuse_quantised
from pomona.adapters.read import check_finite, read_adapter
from pomona.adapters.same_base import BASE, PROVENANCE_FILE, stored_identity
from pomona.adapters.tensors import TensorFile
from pomona.adapters.write import write_adapter
from pomona.errors import InputError
from pomona.whole_folders import whole_folder

_MERGE_FIRST = (
    "Merge it into its base with PEFT's merge_and_unload, save that model with save_pretrained, and give it to pomona convert with "
    "--base and --rank"
)

_MLX_MODELS = "mlx-community/"


def convert(
    source: Path | str,
    output: Path | str,
    *,
    rank: int | None = None,
    max_error: float | None = None,
    base: Path | str | None = None,
    base_name: str | None = None,
    modules: BaseModules | None = None,
    scaling: float | None = None,
    drop: Collection[str] = (),
    dtype: torch.dtype | None = None,
    force: bool = False,
) -> Conversion:
    """Convert an adapter or a fine-tuned model into a plain LoRA folder, which Pomona and PEFT read.

    Two inputs are converted exactly, bit for bit: a PEFT LoRA whose tensors are in a pickle (`.bin`, read by a separate process:
    `tensors_from_pickle`), and an mlx-lm LoRA. DoRA (of PEFT or mlx-lm) and whole fine-tuned models become the best approximation
    of a given rank: their weight differences from the base are factored, and the error is measured.

    Args:
        source: an adapter's folder or tensor file, or a model folder.
        output: the new folder; it appears complete or not at all.
        rank: the largest rank of a module; None keeps the rank of an adapter that is converted exactly.
        max_error: the share of each module's update that may be lost; the smallest rank within this error is used.
        base: the base model's folder; required where the update is a difference from the base's weights.
        base_name: the base model's name in the new adapter, if the input names no base or a base for MLX; None: the folder.
        modules: the modules of the base model's class (`pomona.backbone.base_modules`); None: inferred from the tensors' names.
        scaling: the scaling of an mlx-lm adapter whose config leaves it ambiguous.
        drop: kinds of changes of a whole model that may be left out: `other`, `embeddings`, `head`.
        dtype: fp32, fp16 or bf16; None: that of the input, and fp32 for approximations.
        force: replace an adapter folder that stands at `output`.

    Raises:
        InputError: the input cannot be converted; the error has the reason and an alternative, and nothing is written.
    """
    target = Path(output).resolve()
    found = find_source(Path(source))
    if target in {found.folder.resolve(), *found.folder.resolve().parents}:
        raise InputError("is the input's own folder, or one around it", file=output, fix="Choose another folder")
    refuse_occupied(target, force=force)
    base_folder = None if base is None else read_base_folder(base, modules)
    kinds = None if modules is None else kinds_of(modules)
    order = _Order(found, target, Limits(rank, max_error), base_folder, base_name, dtype, force)
    if found.kind == "model":
        return _from_model(order, base_folder_of(found.folder, found.config, read_checkpoint(found.folder)), kinds, drop)
    with TemporaryDirectory(prefix="pomona-convert-") as name:
        scratch = Path(name).resolve()
        with named_as(scratch, found.folder / CONFIG_FILE, found.file):
            tensors = _tensors(found, scratch)
            if is_mlx_full(found.config):
                config = {} if base_folder is None else base_folder.config
                whole = base_folder_of(found.folder, config, read_file(tensors.file))
                return _from_model(order, whole, kinds, drop, partial=True)
            if drop:
                raise InputError("has no effect: it is for whole models", field="--drop", fix="Leave it out")
            return _from_adapter(order, tensors, scratch, scaling)


@dataclass(frozen=True)
class _Order:
    """The arguments of a conversion that do not depend on the kind of input."""

    source: Source
    target: Path
    limits: Limits
    base: BaseFolder | None
    base_name: str | None
    dtype: torch.dtype | None
    force: bool


def _tensors(found: Source, scratch: Path) -> TensorFile:
    """The adapter's tensors; those of a pickle are copied into a safetensors file first."""
    if found.file.suffix != ".bin":
        return TensorFile(found.file)
    (scratch / "pickle").mkdir()
    copy = scratch / "pickle" / TENSOR_FILE
    tensors_from_pickle(found.file, copy)
    return TensorFile(copy)


def _from_adapter(order: _Order, tensors: TensorFile, scratch: Path, scaling: float | None) -> Conversion:
    config, folder = order.source.config, scratch / "plain"
    folder.mkdir()
    if is_mlx(config, tensors):
        plain = split_mlx(config, tensors, folder, order.source.folder / CONFIG_FILE, scaling)
    else:
        _check_scaling_option(scaling)
        peft_type = config.get("peft_type")
        if peft_type != "LORA":
            problem = "is not LoRA, and only LoRA is converted directly"
            raise InputError(problem, file=order.source.folder / CONFIG_FILE, field="peft_type", value=peft_type, fix=_MERGE_FIRST)
        plain = split_peft(config, tensors, folder)
    adapter = read_adapter(folder)
    check_finite(adapter)
    provenance = {**adapter.provenance, "path": str(order.source.folder), **stored_identity(order.source.folder)}
    adapter = replace(adapter, base_model=_base_model(adapter.base_model, order.base_name), provenance=provenance)
    if adapter.base_model is not None and adapter.base_model.startswith(_MLX_MODELS):
        problem = f"the adapter names {adapter.base_model}, a model for MLX; --base names the model that it was made from"
        plain = replace(plain, warnings=(*plain.warnings, problem))
    if plain.magnitudes is None:
        return _exact(order, plain, adapter, folder)
    return _approximated(order, plain.kind, adapter, DoraParts(adapter, plain.magnitudes, plain.by_token), plain.warnings)


def _base_model(named: str | None, given: str | None) -> str | None:
    """The base model that the adapter names; the given name if it names none, or a copy of the base for MLX."""
    return given or named if named is None or named.startswith(_MLX_MODELS) else named


def _exact(order: _Order, plain: Plain, adapter: Adapter, folder: Path) -> Conversion:
    """Write an adapter that needs no approximation; copy its file if nothing in it changes."""
    if order.limits.max_error is not None:
        raise InputError(
            "has no effect: this adapter is converted exactly", field="--max-error", fix="Leave it out, or give --rank"
        )
    if order.base is not None:
        _check_fit(adapter, order.base)
        adapter = respelled(adapter, order.base.modules)
    pickled = order.source.file.suffix == ".bin"
    rank = max(adapter[module].rank for module in adapter)
    kind = f"{plain.kind} in a pickle" if pickled else plain.kind
    lost = None
    if order.limits.rank is not None:
        adapter, compression = compress(adapter, order.limits.rank)
        rank = max(adapter[module].rank for module in adapter)
        lost = Approximation(compression.error, compression.worst_module, compression.worst_error)
    if order.limits.rank is None and order.dtype is None and _is_canonical(adapter, TensorFile(folder / TENSOR_FILE)):
        refuse_occupied(order.target, force=order.force)
        with whole_folder(order.target) as partial:
            write_config(partial, {**plain.config, "base_model_name_or_path": adapter.base_model})
            shutil.copyfile(folder / TENSOR_FILE, partial / TENSOR_FILE)
            if BASE in adapter.provenance:
                shutil.copyfile(order.source.folder / PROVENANCE_FILE, partial / PROVENANCE_FILE)
    else:
        write_adapter(adapter, order.target, force=order.force, dtype=order.dtype)
    return Conversion(order.target, kind, len(adapter), rank, lost, warnings=(*plain.warnings, *_warnings(adapter, lost)))


def _approximated(order: _Order, kind: str, adapter: Adapter, parts: DoraParts, warnings: tuple[str, ...]) -> Conversion:
    """Convert a DoRA: factor the differences from the base's weights."""
    check_limits(order.limits)
    base = _needed_base(order, kind)
    found = find_weights(parts, base)
    flag = any(one.transposed and module not in adapter.embeddings for module, one in found.items())
    adapter = replace(adapter, provenance={**adapter.provenance, "fan_in_fan_out": flag})
    return _written(order, kind, adapter, dora_deltas(parts, found), warnings)


def _from_model(
    order: _Order, tuned: BaseFolder, kinds: Mapping[str, Kind] | None, drop: Collection[str], *, partial: bool = False
) -> Conversion:
    kind = "mlx-lm whole tensors" if partial else "whole model"
    base = _needed_base(order, kind)
    check_limits(order.limits)
    _refuse_quantised(tuned)
    plan = plan_difference(tuned, base, kinds, drop, partial=partial)
    embeddings = frozenset(module for module, one in plan.modules.items() if one.kind == "embedding")
    flag = any(one.kind == "transposed" for one in plan.modules.values())
    task = task_of(tuned.config if "architectures" in tuned.config else base.config)
    provenance = {"path": str(order.source.folder), "fan_in_fan_out": flag, "task_type": task, "warnings": []}
    empty = Adapter({}, order.base_name or str(base.folder), provenance, embeddings)
    return _written(order, kind, empty, differences(plan), (), plan.dropped)


def _written(
    order: _Order,
    kind: str,
    adapter: Adapter,
    deltas: Iterator[tuple[str, Tensor]],
    warnings: tuple[str, ...],
    dropped: tuple[Dropped, ...] = (),
) -> Conversion:
    """Factor the differences, and write them under the adapter's names."""
    dtype = order.dtype or torch.float32
    factors, lost = factor_all(deltas, order.limits, dtype)
    provenance = {**adapter.provenance, "method": "convert", "from": kind, **asdict(lost), "dropped": [one.name for one in dropped]}
    whole = replace(adapter, factors=factors, provenance=provenance, embeddings=adapter.embeddings & factors.keys())
    write_adapter(whole, order.target, force=order.force, dtype=order.dtype)
    rank = max(one.rank for one in factors.values())
    return Conversion(order.target, kind, len(factors), rank, lost, dropped, (*warnings, *_warnings(adapter, lost)))


def _needed_base(order: _Order, kind: str) -> BaseFolder:
    if order.base is None:
        problem = f"the base model's folder is needed: a {kind} is a difference from its weights"
        given = {} if order.base_name is None else {"value": order.base_name}
        raise InputError(problem, field="--base", fix="Give the folder of the model that it was trained on", **given)
    _refuse_quantised(order.base)
    return order.base


def _refuse_quantised(model: BaseFolder) -> None:
    refuse_quantised(model.config, model.folder / CONFIG)
    refuse_codes(model.checkpoint)


def _check_fit(adapter: Adapter, base: BaseFolder) -> None:
    for misfit in misfits(adapter, base):
        if misfit.level == "error":
            raise InputError(misfit.message, file=base.folder, fix="Give --base with the model that it was trained on")


def _check_scaling_option(scaling: float | None) -> None:
    if scaling is not None:
        raise InputError("has no effect: PEFT's config contains the scaling", field="--scaling", fix="Leave it out")


def _is_canonical(adapter: Adapter, tensors: TensorFile) -> bool:
    """Whether every factor has the name that PEFT looks for."""
    return all(key in tensors.info for module in adapter for key in keys_of(module, embedding=module in adapter.embeddings))


def _warnings(adapter: Adapter, lost: Approximation | None) -> tuple[str, ...]:
    found = adapter.provenance.get("warnings")
    kept = tuple(str(one) for one in found) if isinstance(found, list) else ()
    if lost is None or lost.error <= LARGE_ERROR:
        return kept
    return (
        *kept,
        f"the factors lose {lost.error:.1%} of the update, so the adapter may answer differently; a higher rank loses less",
    )
