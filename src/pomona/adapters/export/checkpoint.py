"""A model's weights in safetensors files, read by blocks of rows and rewritten without a whole tensor in memory.

Axes: N rows, M columns of a stored matrix.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pomona.adapters.config import read_json_object
from pomona.adapters.tensors import DTYPES, read_header
from pomona.errors import InputError
from pomona.plain_files import refuse_special

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BLOCK_ENTRIES = 2**20
"""Entries of a matrix that are processed at a time: 8 MB in fp64."""
_COPY_BYTES = 2**24
_AGAIN = "Copy the model again from its source"


@dataclass(frozen=True)
class Stored:
    """The location of a tensor: its file, dtype (as the format names it), shape, and byte range."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def row_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """The matrix in blocks of rows, in the file's dtype, each with the number of its first row.

        Raises:
            InputError: the file is truncated.
        """
        rows, columns = self.shape
        dtype = DTYPES[self.dtype]
        step = max(1, BLOCK_ENTRIES // columns)
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            for first in range(0, rows, step):
                data = bytearray(_read(stream, min(step, rows - first) * columns * dtype.itemsize, self.file))
                yield first, torch.frombuffer(data, dtype=dtype).view(-1, columns)

    def pieces(self) -> Iterator[bytes]:
        """The unchanged bytes of the tensor, of any dtype."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            for done in range(0, self.nbytes, _COPY_BYTES):
                yield _read(stream, min(_COPY_BYTES, self.nbytes - done), self.file)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model folder.

    Args:
        folder: the model folder.
        tensors: name -> location, in the order of the files.
        metadata: file name -> the header's `__metadata__`.
        sharded: whether an index names the files.
    """

    folder: Path
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, Mapping[str, str]]
    sharded: bool


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a model folder's safetensors files: `model.safetensors`, or the files named in its index.

    Raises:
        InputError: there are none, a file is missing or damaged, or the index and the files contradict each other.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        tensors, metadata = _read_header(single)
        return Checkpoint(folder, tensors, {SINGLE: metadata}, sharded=False)
    if not index.is_file():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".gguf", ".pth"})
        problem = f"has no {SINGLE}" + (f", only {others[0]}" if others else "")
        raise InputError(problem, file=folder, fix="Save the model with transformers' save_pretrained, which writes safetensors")
    named = read_json_object(index).get("weight_map")
    if not isinstance(named, dict) or not all(_is_plain_name(file) for file in named.values()):
        raise InputError("does not say which tensor is in which file", file=index, field="weight_map", fix=_AGAIN)
    tensors: dict[str, Stored] = {}
    metadata = {}
    for file in sorted(set(named.values())):
        found, metadata[file] = _read_header(folder / file)
        if twice := found.keys() & tensors.keys():
            raise InputError("is in two files", file=folder / file, field=min(twice), fix=_AGAIN)
        tensors.update(found)
    for name, file in named.items():
        if name not in tensors or tensors[name].file.name != file:
            raise InputError(f"is not in {file}, where the index says it is", file=index, field=name, fix=_AGAIN)
    return Checkpoint(folder, tensors, metadata, sharded=True)


def read_file(file: Path) -> Checkpoint:
    """Read the header of a single safetensors file.

    Raises:
        InputError: the file is missing or damaged.
    """
    tensors, metadata = _read_header(file)
    return Checkpoint(file.parent, tensors, {file.name: metadata}, sharded=False)


def _read_header(file: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    refuse_special(file)
    try:
        with FileIO(file) as stream:
            entries, metadata, start = read_header(file, stream)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=file, fix=_AGAIN) from error
    tensors = {}
    # By position, not by name, so that the bytes are read and written in one sequence.
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        tensors[name] = Stored(file, entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
    return tensors, metadata


def _read(stream: BinaryIO, count: int, file: Path) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise InputError("ends before its last tensor", file=file, fix=_AGAIN)
    return data


def _is_plain_name(name: object) -> bool:
    """Whether a name has no folder part: an index must not lead out of its own folder."""
    return isinstance(name, str) and name == os.path.basename(name) and name.endswith(".safetensors")  # noqa: PTH119 (not a path)
