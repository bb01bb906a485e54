"""A safetensors file, checked on opening and then read or written one tensor at a time. Never unpickles."""

from __future__ import annotations

import itertools
import json
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pomona.errors import InputError
from pomona.plain_files import refuse_special
from pomona.stand_ins import refuse_stand_in

DTYPES: Mapping[str, torch.dtype] = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_AGAIN = "Copy the adapter again from its source"
_LARGE = 2**28  # bytes; below it nobody asks what memory is available


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's entry in a safetensors header: its shape, and the format's name of its dtype (`F32`, `BF16`)."""

    shape: tuple[int, ...]
    dtype: str


class TensorFile:
    """The tensors of one safetensors file, which another file may replace while this one is read.

    Tensors are copied into new memory, not mapped, so that a freed tensor no longer counts as memory of the process.

    Args:
        file: path of the file.

    Raises:
        InputError: the file cannot be read, its header is not a valid safetensors header, or it names a tensor twice.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        refuse_special(file)
        try:
            descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, descriptor)
            self._stream = FileIO(descriptor, closefd=False)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", file=file) from error
        _refuse_larger_than_memory(os.fstat(descriptor).st_size, file)
        entries, _, start = read_header(file, self._stream)
        self.info: Mapping[str, TensorInfo] = {
            name: TensorInfo(tuple(entry["shape"]), entry["dtype"]) for name, entry in entries.items()
        }
        self._spans = {
            name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1]) for name, entry in entries.items()
        }

    def read(self, *names: str) -> list[Tensor]:
        """These tensors, in the file's dtypes (each one of `DTYPES`), on the CPU.

        Adjacent tensors of one dtype, such as a module's A and B, are read and checked together.

        Raises:
            InputError: a tensor has NaN or infinite values, or the file was truncated since it was opened.
        """
        spans = [self._spans[name] for name in names]
        dtypes = {self.info[name].dtype for name in names}
        if len(dtypes) > 1 or any(end != start for (_, end), (start, _) in itertools.pairwise(spans)):
            return [self.read(name)[0] for name in names]
        raw = self._room(spans[-1][1] - spans[0][0], names[0])
        self._stream.seek(spans[0][0])
        if self._stream.readinto(raw.data) != raw.nbytes:
            raise InputError("ends before its last tensor", file=self.file, field=names[0], fix=_AGAIN)
        values = torch.from_numpy(raw).view(DTYPES[dtypes.pop()])
        shapes = [self.info[name].shape for name in names]
        tensors = [part.view(shape) for part, shape in zip(values.split([*map(math.prod, shapes)]), shapes, strict=True)]
        # PEFT adds every update in float32, which does not hold what float64 may.
        used = values.float() if values.dtype == torch.float64 else values
        if not all_finite(used):
            bad = next(name for name, tensor in zip(names, tensors, strict=True) if not all_finite(tensor.float()))
            problem = "holds NaN or infinite values" if not all_finite(values) else "holds values that float32 does not"
            raise InputError(problem, file=self.file, field=bad, fix="Use an earlier checkpoint of the adapter")
        return tensors

    def _room(self, size: int, name: str) -> np.ndarray:
        """Memory for so many bytes; a system that gives more than it has would end this process once it is used."""
        try:
            if size > _LARGE and size > (available := _available_bytes()):
                raise MemoryError(f", and {_shown(available)} are available")
            return np.empty(size, dtype=np.uint8)
        except MemoryError as error:
            why = str(error) if str(error).startswith(",") else ", which this process does not get"
            raise InputError(f"needs {_shown(size)} of memory{why}", file=self.file, field=name) from error


def write_tensors(file: Path, layout: Mapping[str, TensorInfo], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write a safetensors file from an iterator of tensors: only one of them is in memory at a time.

    Args:
        file: the file to create.
        layout: every tensor's shape and dtype, in the order of `tensors`.
        tensors: names and tensors, in the order of `layout`.

    Raises:
        ValueError: a tensor differs from its entry in `layout`.
    """

    def data() -> Iterator[memoryview]:
        awaited = iter(layout.items())
        for name, tensor in tensors:
            if next(awaited, None) != (name, tensor_info(tensor)):
                raise ValueError(f"{name} {tensor_info(tensor)} is not what the layout has here")
            yield bytes_of(tensor.cpu())
        if (left := next(awaited, None)) is not None:
            raise ValueError(f"{left[0]} is in the layout and was not given")

    sizes = {name: (info.dtype, info.shape, _size(info)) for name, info in layout.items()}
    write_safetensors(file, sizes, {"format": "pt"}, data())


def read_header(file: Path, stream: FileIO) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Check a safetensors file and read its header.

    Args:
        file: its path.
        stream: the open file, at its beginning.

    Returns:
        Name -> `dtype`, `shape` and `data_offsets`; the header's `__metadata__`; and the position of the first tensor's bytes.

    Raises:
        InputError: the file cannot be read, its header is not a valid safetensors header, or it names a tensor twice.
    """
    try:
        with safe_open(file, framework="numpy"):
            pass  # the library checks lengths, spans and shapes; with "pt" the whole file would have to fit in memory
        length = int.from_bytes(stream.read(8), "little")
        entries = _unique_entries(stream.read(length), file)
    except SafetensorError as error:
        stream.seek(0)
        refuse_stand_in(file, stream.read(64))
        raise InputError(f"is not a sound safetensors file: {_cut(stream) or error}", file=file, fix=_AGAIN) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=file) from error
    return entries, entries.pop("__metadata__", {}), 8 + length


def write_safetensors(
    file: Path,
    layout: Mapping[str, tuple[str, tuple[int, ...], int]],
    metadata: Mapping[str, str],
    data: Iterable[bytes | memoryview],
) -> None:
    """Write a safetensors file from its tensors' bytes, of which only a part is in memory at a time.

    Args:
        file: the file to create.
        layout: name -> (dtype by the format's name, shape, number of bytes).
        metadata: the header's `__metadata__`.
        data: the bytes of all tensors, one after the other.

    Raises:
        ValueError: the number of bytes differs from the layout.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = written = 0
    for name, (dtype, shape, nbytes) in layout.items():
        start, end = end, end + nbytes
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format requires tensors to start at a multiple of eight
    with file.open("wb", buffering=0) as stream:
        _write_all(stream, len(header).to_bytes(8, "little") + header)
        for piece in data:
            _write_all(stream, piece)
            written += len(piece)
    if written != end:
        raise ValueError(f"{file.name}: {written} bytes of tensors where the layout has {end}")


def tensor_info(tensor: Tensor) -> TensorInfo:
    """The header entry of this tensor, whose dtype must be one of `DTYPES`."""
    return TensorInfo(tuple(tensor.shape), _NAMES[tensor.dtype])


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's bytes row by row: its own memory if it is contiguous. On the CPU."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    A finite sum proves that all entries are finite, in one pass and without a mask.
    """
    total = tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32)
    return math.isfinite(float(total)) or bool(torch.isfinite(tensor).all())


def _cut(stream: FileIO) -> str | None:
    """The missing size, if the file is shorter than its header says, as after an interrupted download."""
    has = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if not 8 < length <= has - 8:
        return None
    try:
        entries = json.loads(stream.read(length))
        needed = 8 + length + max(int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None
    return f"it has {has:,} of its {needed:,} bytes, as if its download broke off" if has < needed < 2**50 else None


def _refuse_larger_than_memory(size: int, file: Path) -> None:
    """Refuse a file that no work on it can hold; one with holes takes no room on the disk, however large it says that it is."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else size
    if size > memory:
        raise InputError(f"has {_shown(size)}, and this machine has {_shown(memory)} of memory", file=file, fix=_AGAIN)


def _available_bytes() -> int:
    """Memory that can be used without swapping, where the system says so; else all that the machine has."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**63


def _shown(size: int) -> str:
    units = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"))
    return next((f"{size / bytes_:.1f} {unit}" for bytes_, unit in units if size >= bytes_), f"{size:,} bytes")


def _size(info: TensorInfo) -> int:
    return torch.Size(info.shape).numel() * DTYPES[info.dtype].itemsize


def _write_all(stream: FileIO, data: bytes | memoryview) -> None:
    """Write all bytes; a single unbuffered write may write only a part (on Linux at most 2 GiB)."""
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def _unique_entries(header: bytes, file: Path) -> dict[str, dict[str, Any]]:
    """The header's entries; the safetensors library silently keeps the last of two entries with one name."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            if name in found:
                raise InputError("the header has an entry twice", file=file, field=name, fix=_AGAIN)
            found[name] = value
        return found

    return json.loads(header, object_pairs_hook=unique)


def not_finite(exact: Sequence[Tensor], dtype: torch.dtype, module: str) -> InputError:
    """The error for factors that cannot be written: values are not finite, or too large for the dtype.

    Args:
        exact: the factors before rounding.
        dtype: the dtype of the file.
        module: the module of the factors.
    """
    largest = max(float(one.abs().max()) for one in exact)
    if not all(all_finite(one) for one in exact) or largest <= torch.finfo(dtype).max:
        return InputError("has NaN or infinite values, nothing was written", field=module, fix="Leave this adapter out")
    name, limit = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
    problem = f"has a value of {largest:.4g}, and {name} holds {limit:.4g} at most; nothing was written"
    return InputError(problem, field=module, fix="Give --dtype bfloat16 or float32")
