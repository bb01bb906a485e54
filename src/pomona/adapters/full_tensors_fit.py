"""Whether the full tensors of an adapter equal those of a base model's folder, only have more rows, or do not fit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pomona.adapters.export.base_folder import BaseFolder
from pomona.adapters.export.checkpoint import Stored
from pomona.adapters.factors import Adapter
from pomona.adapters.full_tensors import info_of, is_copy
from pomona.adapters.names import EMBEDDINGS, HEADS, last_part
from pomona.adapters.tensors import DTYPES


def full_tensors_fit(adapter: Adapter, base: BaseFolder) -> list[tuple[Literal["ok", "warning", "error"], str]]:
    """A sentence on each full tensor for this base; reads the tensors of equal shapes."""
    return [_fit(adapter, parameter, base) for parameter in adapter.whole]


def _fit(adapter: Adapter, parameter: str, base: BaseFolder) -> tuple[Literal["ok", "warning", "error"], str]:
    stored = _stored(parameter, base)
    if stored is None:
        return "error", f"{parameter}: is brought whole, and the base's files have no tensor of the name"
    shape = info_of(adapter, parameter).shape
    if shape == stored.shape:
        if stored.dtype in DTYPES and is_copy(adapter.whole[parameter], _read(stored)):
            return "ok", f"{parameter}: is brought whole, and is a copy of the base's own"
        return "ok", f"{parameter}: is brought whole, and takes the place of the base's own"
    has, brings = (" x ".join(map(str, one)) for one in (stored.shape, shape))
    if last_part(parameter.removesuffix(".weight")) in HEADS | EMBEDDINGS and shape[1:] == stored.shape[1:]:
        return (
            "warning",
            f"{parameter}: is brought whole for {shape[0]} tokens, and the base's has {stored.shape[0]}",
        )
    return "error", f"{parameter}: is brought whole as {brings}, but the base's is stored as {has}"


def _stored(parameter: str, base: BaseFolder) -> Stored | None:
    """The base's tensor; for a head that is not in the files, the embedding to which it is tied."""
    checkpoint = base.checkpoint
    if parameter in checkpoint.tensors:
        return checkpoint.tensors[parameter]
    module, _, kind = parameter.rpartition(".")
    name = base.tensors.get(f"{base.modules.find(module) or module}.{kind}")
    if name is None and last_part(module) in HEADS:
        found = [one for one in checkpoint.tensors if last_part(one.removesuffix(".weight")) in EMBEDDINGS]
        name = found[0] if len(found) == 1 else None
    return None if name is None else checkpoint.tensors[name]


def _read(stored: Stored) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(stored.pieces())), dtype=DTYPES[stored.dtype]).view(stored.shape)
