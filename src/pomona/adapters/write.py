"""Write a PEFT folder that loads without Pomona.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pomona.adapters.config import CONFIG_FILE, plain_config
from pomona.adapters.experts import stack
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.full_tensors import info_of
from pomona.adapters.keys import PREFIX, TENSOR_FILE, keys_of
from pomona.adapters.layout import FilePair, lay_out
from pomona.adapters.names import older_spelling
from pomona.adapters.new_folder import refuse_occupied
from pomona.adapters.same_base import BASE, PROVENANCE_FILE
from pomona.adapters.shapes import shape_of
from pomona.adapters.tensors import DTYPES, TensorInfo, all_finite, not_finite, tensor_info, write_tensors
from pomona.errors import InputError
from pomona.whole_folders import whole_folder


def write_adapter(
    adapter: Adapter, path: Path | str, *, force: bool = False, dtype: torch.dtype | None = None, mixture: bool = False
) -> None:
    """Write an adapter as a PEFT folder that loads without Pomona. The folder is created atomically.

    One rank `r` (the largest; smaller modules get zero rows in A and zero columns in B), `lora_alpha = r`, so the scaling is 1
    and each module's own scaling is folded into B. Factors keep their dtype if their scaling is 1 (their values are then
    written bit for bit); other factors are written in fp32. `fan_in_fan_out`, `task_type`, `revision` and `auto_mapping` are taken
    from the provenance; `pomona.json`, next to PEFT's two files, has the provenance of a merge and the identity of the base
    model (`base`).
    Full tensors are written bit for bit. Only one module is in memory at a time, besides the content of `adapter`.

    Args:
        adapter: the adapter; every module's factors are read twice, for their shapes and for their values.
        path: the folder to create, with missing parent folders.
        force: replace an existing adapter folder, in one operation where the system has one.
        dtype: fp32, fp16 or bf16 to write every factor in, rounded; None: as above.
        mixture: the base is known to be a mixture of experts (see `pomona.adapters.layout`).

    Raises:
        InputError: `path` exists and `force` is not given, or it is not an adapter folder; the adapter has no modules; writing
            to the disk failed.
        InputError: a value is NaN or infinite after the scaling is folded in, or too large for the dtype.
    """
    target = Path(path).resolve()
    refuse_occupied(target, force=force)
    if len(adapter) == 0:
        raise InputError("the adapter has no modules", field="adapter", fix="Give at least one adapted module")
    laid_out = lay_out(adapter, mixture=mixture)
    tensors, rank = _tensor_layout(adapter, laid_out.pairs, dtype)
    # PEFT renames keys at loading, but not targets, so targets get both names.
    older = {_written_name(adapter, pair) for pair in laid_out.pairs if not pair.stacked and pair.module in laid_out.modules}
    config = plain_config(
        rank,
        tuple({*laid_out.modules, *older}),
        base_model=adapter.base_model,
        fan_in_fan_out=bool(adapter.provenance.get("fan_in_fan_out", False)),
        parameters=laid_out.parameters,
        provenance=adapter.provenance,
    )
    with whole_folder(target) as partial:
        _write_json(partial / CONFIG_FILE, config)
        provenance = dict(adapter.provenance)
        kept = provenance if "method" in provenance else {name: provenance[name] for name in (BASE,) if name in provenance}
        if kept:
            _write_json(partial / PROVENANCE_FILE, kept)
        write_tensors(partial / TENSOR_FILE, tensors, _tensors(adapter, laid_out.pairs, rank, tensors))


def _write_json(file: Path, content: dict[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _tensor_layout(adapter: Adapter, pairs: Sequence[FilePair], dtype: torch.dtype | None) -> tuple[dict[str, TensorInfo], int]:
    """The layout of the file, without folding or padding, and the common rank."""
    found = [[_Entry(one.rank, one.scaling != 1.0, one.A.dtype, one.B.dtype) for one in pair.factors(adapter)] for pair in pairs]
    rank = max(1, *(entry.rank for entries in found for entry in entries))
    layout: dict[str, TensorInfo] = {}
    for pair, entries in zip(pairs, found, strict=True):
        O, I = shape_of(adapter, pair.like)  # noqa: E741 (axes)
        wide, stacked_rank = any(entry.wide for entry in entries), rank * len(entries)
        dtypes = ({entry.dtype_A for entry in entries}, {entry.dtype_B for entry in entries})
        for key, shape, own in zip(_keys(adapter, pair), ((stacked_rank, I), (O, stacked_rank)), dtypes, strict=True):
            written = dtype or (torch.float32 if wide or len(own) > 1 else own.pop())
            layout[key] = TensorInfo(shape, tensor_info(torch.empty(0, dtype=written)).dtype)
    return layout | {f"{PREFIX}{parameter}": info_of(adapter, parameter) for parameter in adapter.whole}, rank


class _Entry(NamedTuple):
    rank: int
    wide: bool
    dtype_A: torch.dtype
    dtype_B: torch.dtype


def _tensors(
    adapter: Adapter, pairs: Sequence[FilePair], rank: int, layout: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, Tensor]]:
    for pair in pairs:
        plain = [_plain(factors, rank) for factors in pair.factors(adapter)]
        keys = _keys(adapter, pair)
        dtype_A, dtype_B = (DTYPES[layout[key].dtype] for key in keys)
        cast = [(A_RI.to(dtype_A), B_OR.to(dtype_B)) for A_RI, B_OR in plain]
        for key, matrix in zip(keys, stack(cast) if pair.stacked else cast[0], strict=True):
            if not all_finite(matrix):
                exact = [one for factors in plain for one in factors]
                raise not_finite(exact, matrix.dtype, pair.like)
            yield key, matrix
    for parameter, tensor in adapter.whole.items():
        yield f"{PREFIX}{parameter}", tensor.detach()


def _plain(factors: Factors, rank: int) -> tuple[Tensor, Tensor]:
    """A and B with the scaling folded into B, padded with zeros to `rank`; the same tensors if nothing changes."""
    A_RI, B_OR = factors.A.detach(), factors.B.detach()
    if factors.scaling != 1.0:
        A_RI, B_OR = A_RI.float(), B_OR.float() * factors.scaling
    missing = rank - factors.rank
    if missing == 0:
        return A_RI, B_OR
    return torch.nn.functional.pad(A_RI, (0, 0, 0, missing)), torch.nn.functional.pad(B_OR, (0, missing))


def _written_name(adapter: Adapter, pair: FilePair) -> str:
    """The older name if it was read so and no base model changed it, because PEFT knows the models that renamed it."""
    older = adapter.provenance.get("older_names")
    return older_spelling(pair.module) or pair.module if isinstance(older, list | tuple) and pair.like in older else pair.module


def _keys(adapter: Adapter, pair: FilePair) -> tuple[str, str]:
    return keys_of(_written_name(adapter, pair), embedding=pair.module in adapter.embeddings)
