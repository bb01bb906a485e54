"""The dtypes that can be written, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pomona.errors import InputError, suggest

if TYPE_CHECKING:
    import torch

_DTYPES = ("bfloat16", "float16", "float32")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name.

    Raises:
        InputError: no such dtype to write.
    """
    import torch

    if name not in _DTYPES:
        raise InputError("cannot be written", field="--dtype", value=name, fix=suggest(name, _DTYPES))
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
