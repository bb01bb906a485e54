"""Write a PEFT folder that loads without Pomona.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pomona.adapters.config import CONFIG_FILE, plain_config
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.keys import TENSOR_FILE, keys_of
from pomona.adapters.place import appearing, refuse_occupied
from pomona.adapters.tensors import TensorInfo, all_finite, tensor_info, write_tensors
from pomona.errors import InputError, PomonaError

PROVENANCE_FILE = "pomona.json"


def write_adapter(adapter: Adapter, path: Path | str, *, force: bool = False, dtype: torch.dtype | None = None) -> None:
    """Write an adapter as a PEFT folder that loads without Pomona. The folder appears whole or not at all.

    One rank `r` (the largest; smaller modules get zero rows in A and zero columns in B), `lora_alpha = r`, so the scaling is 1
    and each module's own scaling is folded into B. Factors keep their dtype where their scaling is 1 (their values are then
    written bit for bit); other factors are written in fp32. `fan_in_fan_out`, `task_type`, `revision` and `auto_mapping` are taken
    from the provenance; that of a merge, which says how it was made, is written beside the two files of PEFT, as `pomona.json`.
    One module is in memory at a time, beside what `adapter` holds.

    Args:
        adapter: what to write; every module's factors are read twice, for their shapes and for their values.
        path: the folder to make; missing parent folders are made too.
        force: replace an adapter folder that stands there. It is moved aside first, and comes back if the new one cannot take its
            place.
        dtype: fp32, fp16 or bf16 to write every factor in, rounded; None: as above.

    Raises:
        InputError: something stands at `path` and `force` is not given, or it is not an adapter folder; the adapter has no
            modules; the disk refuses.
        PomonaError: a value is NaN or infinite after the scaling is folded in.
    """
    target = Path(path).resolve()
    refuse_occupied(target, force=force)
    if len(adapter) == 0:
        raise InputError("the adapter has no modules", field="adapter", mend="Give at least one adapted module")
    layout, rank = _layout(adapter, dtype)
    fan_in_fan_out = bool(adapter.provenance.get("fan_in_fan_out", False))
    config = plain_config(
        rank,
        adapter.modules,
        base_model=adapter.base_model,
        fan_in_fan_out=fan_in_fan_out,
        provenance=adapter.provenance,
    )
    with appearing(target) as partial:
        _write_json(partial / CONFIG_FILE, config)
        if "method" in adapter.provenance:
            _write_json(partial / PROVENANCE_FILE, dict(adapter.provenance))
        write_tensors(partial / TENSOR_FILE, layout, _tensors(adapter, rank, dtype))


def _write_json(file: Path, content: dict[str, object]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _layout(adapter: Adapter, dtype: torch.dtype | None) -> tuple[dict[str, TensorInfo], int]:
    """What the file will hold, without folding or padding anything yet; and the one rank."""
    rank = max(1, *(adapter[module].rank for module in adapter))
    layout: dict[str, TensorInfo] = {}
    for module in adapter:
        factors = adapter[module]
        wide = factors.scaling != 1.0
        shapes = ((rank, factors.in_features), (factors.out_features, rank))
        for key, shape, matrix in zip(_keys(adapter, module), shapes, (factors.A, factors.B), strict=True):
            written = dtype or (torch.float32 if wide else matrix.dtype)
            layout[key] = TensorInfo(shape, tensor_info(torch.empty(0, dtype=written)).dtype)
    return layout, rank


def _tensors(adapter: Adapter, rank: int, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    for module in adapter:
        for key, matrix in zip(_keys(adapter, module), _plain(adapter[module], rank), strict=True):
            written = matrix if dtype is None else matrix.to(dtype)
            if not all_finite(written):
                raise PomonaError("has NaN or infinite values, nothing was written", field=module)
            yield key, written


def _plain(factors: Factors, rank: int) -> tuple[Tensor, Tensor]:
    """A and B with the scaling folded into B, padded with zeros to `rank`; themselves where there is nothing to do."""
    A_RI, B_OR = factors.A.detach(), factors.B.detach()
    if factors.scaling != 1.0:
        A_RI, B_OR = A_RI.float(), B_OR.float() * factors.scaling
    missing = rank - factors.rank
    if missing == 0:
        return A_RI, B_OR
    return torch.nn.functional.pad(A_RI, (0, 0, 0, missing)), torch.nn.functional.pad(B_OR, (0, missing))


def _keys(adapter: Adapter, module: str) -> tuple[str, str]:
    return keys_of(module, embedding=module in adapter.embeddings)
