"""A safetensors file whose header is checked at once and whose tensors are read one at a time. Never unpickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pomona.errors import InputError

_AGAIN = "Copy the adapter again from its source"


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of a tensor: its shape, and its dtype by the format's name (`F32`, `BF16`)."""

    shape: tuple[int, ...]
    dtype: str


class TensorFile:
    """The tensors of one safetensors file, memory-mapped: the file may be replaced by another while this one is read.

    Args:
        file: path of the file.

    Raises:
        InputError: the file cannot be read, its header is not a sound safetensors header, or it names a tensor twice.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._handle = safe_open(file, framework="pt")
            self.info: Mapping[str, TensorInfo] = {name: self._info(name) for name in self._handle.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise InputError(f"is not a sound safetensors file: {error}", file=file, mend=_AGAIN) from error
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", file=file) from error
        _refuse_repeated_names(file)

    def _info(self, name: str) -> TensorInfo:
        piece = self._handle.get_slice(name)
        return TensorInfo(tuple(piece.get_shape()), piece.get_dtype())

    def read(self, name: str) -> Tensor:
        """One tensor, in the file's dtype, on the CPU.

        Raises:
            InputError: it holds NaN or infinite values.
        """
        tensor = self._handle.get_tensor(name)
        if not torch.isfinite(tensor).all():
            raise InputError(
                "holds NaN or infinite values", file=self.file, field=name, mend="Use an earlier checkpoint of the adapter"
            )
        return tensor


def _refuse_repeated_names(file: Path) -> None:
    """The safetensors library keeps the last of two entries of one name without a word."""
    with file.open("rb") as stream:
        header = stream.read(int.from_bytes(stream.read(8), "little"))

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            if name in found:
                raise InputError("the header has an entry twice", file=file, field=name, mend=_AGAIN)
            found[name] = value
        return found

    json.loads(header, object_pairs_hook=unique)
