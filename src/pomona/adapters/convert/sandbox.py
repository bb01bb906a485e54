"""Run as a script in a process of its own: read tensors from a pickle, shut in as far as the system allows, and write safetensors.

It imports nothing of Pomona, so that nothing but torch and safetensors is there. `torch.load(weights_only=True)` calls no function
that a pickle names but those that make tensors. The walls around it are for the day on which that is not true: no network, no
other process, no file but those two, no module that is not loaded yet, limited memory and time.
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
# Beginnings of the audit events (see Python's audit event table) of which none is needed once the modules are loaded.
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
    """The tensors of a state dict that `torch.save` wrote, each in memory of its own.

    Raises:
        ValueError: it is no dictionary from names to dense tensors; says what else.
        Exception: whatever torch raises for what it does not read.
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
    """Load and save once, so that everything that torch and safetensors load late is there before the doors close."""
    import torch
    from safetensors.torch import save

    for new in (True, False):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            stream = io.BytesIO()
            torch.save({"a": torch.zeros(2, dtype=dtype)}, stream, _use_new_zipfile_serialization=new)
            stream.seek(0)
            save(read_tensors(stream))
    with contextlib.suppress(Exception):
        read_tensors(io.BytesIO(b"\x80\x02cposix\nsystem\n."))  # the way that a refusal takes


def _shut_in(file_bytes: int) -> None:
    if sys.platform == "linux":
        # Without capabilities outside of it, and with a network of its own that leads nowhere. Where the system forbids it, the
        # hook below must do.
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
    """Read `source`, write `target`, and print what went wrong, if anything, as JSON.

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
