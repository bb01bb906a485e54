"""Read tensors from a pickle and write safetensors: a script that runs in a separate, restricted process.

It imports nothing of Pomona, so that only torch and safetensors are loaded. `torch.load(weights_only=True)` calls no function
that a pickle names except those that build tensors. The restrictions protect against a fault in it: no network, no other process,
no file except these two, no further modules, and limits on memory and time.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import sys
import warnings
from typing import Any, BinaryIO

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SECONDS = 1800
_SPARE_BYTES = 2**31
# Prefixes of audit events (see Python's audit event table) that are not needed once the modules are loaded.
_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.",
    "pty.",
    "shutil.",
    "tempfile.",
    "ctypes.",
    "import",
    "urllib.",
    "ftplib.",
    "http.",
    "smtplib.",
    "webbrowser.",
    "winreg.",
    "open",
    "exec",
    "compile",
    "sys.addaudithook",
    "sys._getframe.",
    "signal.",
    "resource.",
    "mmap.",
    "code.__new__",
    "function.__new__",
)


def read_tensors(stream: BinaryIO) -> dict[str, Any]:
    """The tensors of a state dict that `torch.save` wrote, each in its own memory.

    Raises:
        ValueError: the file is not a dictionary of names and dense tensors; the message says what it is.
        Exception: any error of torch.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.load(stream, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise ValueError(f"holds a {type(found).__name__} and not a dictionary of tensors")
    tensors: dict[str, Any] = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise ValueError(f"has a name that is not text: {name!r}")
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} is a {type(value).__name__} and not a tensor")
        if value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{name} is not a dense tensor")
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    if not tensors:
        raise ValueError("holds no tensors")
    return tensors


def _warm_up() -> None:
    """Load and save once, so that all lazily loaded modules are in memory before the restrictions begin."""
    import torch
    from safetensors.torch import save

    for new in (True, False):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            stream = io.BytesIO()
            torch.save({"a": torch.zeros(2, dtype=dtype)}, stream, _use_new_zipfile_serialization=new)
            stream.seek(0)
            save(read_tensors(stream))
    with contextlib.suppress(Exception):
        read_tensors(io.BytesIO(b"\x80\x02cposix\nsystem\n."))  # the path of a refusal


def _shut_in(file_bytes: int) -> None:
    if sys.platform == "linux":
        # A new user namespace without capabilities outside it, and a new network namespace without connections. If the system
        # forbids them, the hook below is the only barrier.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NET)
    with contextlib.suppress(ImportError):
        import resource

        limits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": 0,
            "RLIMIT_CPU": _SECONDS,
            "RLIMIT_FSIZE": 2 * file_bytes + _SPARE_BYTES,
        }
        if sys.platform == "linux":
            with open("/proc/self/statm") as statm:  # noqa: PTH123 (as few modules as can be)
                limits["RLIMIT_AS"] = int(statm.read().split()[0]) * resource.getpagesize() + 4 * file_bytes + _SPARE_BYTES
        for name, limit in limits.items():
            with contextlib.suppress(AttributeError, ValueError, OSError):
                resource.setrlimit(getattr(resource, name), (limit, limit))

    def forbid(event: str, _: Any) -> None:
        if event.startswith(_FORBIDDEN):
            raise RuntimeError(f"the pickle tried to do more than build tensors: {event}")

    sys.addaudithook(forbid)


def main(source: str, target: str, *paths: str) -> None:
    """Read `source`, write `target`, and print an error as JSON.

    Args:
        source: the pickle.
        target: the safetensors file to write.
        *paths: where torch and safetensors are.
    """
    sys.path.extend(paths)
    from safetensors.torch import save_file

    with open(source, "rb") as stream:  # noqa: PTH123
        _warm_up()
        _shut_in(os.fstat(stream.fileno()).st_size)
        try:
            tensors = read_tensors(stream)
            save_file(tensors, target, metadata={"format": "pt"})
        except BaseException as error:
            print(json.dumps({"kind": type(error).__name__, "message": str(error)}))
            raise SystemExit(1) from None


if __name__ == "__main__":
    main(*sys.argv[1:])
