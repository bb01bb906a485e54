"""Tensors out of a pickle, by a process of its own that does nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import safetensors
import torch

from pomona.adapters.convert import sandbox
from pomona.errors import InputError
from pomona.stand_ins import refuse_stand_in

_ELSE = "Where you trust it, load it with PEFT or transformers and save it again with save_pretrained"
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04")
_ZIP = b"PK\x03\x04"
# A pickle of the number that torch wrote in front of everything before it wrote zip files.
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def tensors_from_pickle(file: Path, target: Path) -> None:
    """Write the tensors of a `.bin` file as safetensors, bit for bit. What else the pickle asks for is not done.

    A fresh Python reads it with `torch.load(weights_only=True)`: without the network, other processes and files, and with none of
    this process's variables (see `sandbox`).

    Args:
        file: a state dict that `torch.save` wrote, in the present or the old format.
        target: the safetensors file to write.

    Raises:
        InputError: it asks for more than tensors, or is not sound; nothing was run.
    """
    _check_beginning(file)
    places = {str(Path(str(module.__file__)).parents[1]) for module in (torch, safetensors, np)}
    command = [sys.executable, "-I", str(sandbox.__file__), str(file.resolve()), str(target.resolve()), *sorted(places)]
    done = subprocess.run(command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    target.unlink(missing_ok=True)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise InputError(f"cannot be read: {last}", file=file, fix="Copy it again from its source") from None
    raise _refusal(file, told["kind"], told["message"])


def _check_beginning(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            first = stream.read(64)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=file) from error
    if not first.startswith((_ZIP, _OLD_FORMAT)):
        if not first.startswith(_PICKLES):
            refuse_stand_in(file, first)
        fix = "Give a file that torch.save wrote, such as PEFT's adapter_model.bin"
        raise InputError("was not written by torch.save, and was not opened", file=file, fix=fix)


def _environment() -> dict[str, str]:
    """One thread, no accelerator, and what the system needs to start a program at all."""
    fixed = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**{name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}, **fixed}


def _refusal(file: Path, kind: str, message: str) -> InputError:
    if (named := _GLOBAL.search(message)) is not None:
        problem = f"is a pickle that asks for {named[1]}, which is no tensor; it was not run, and nothing was written"
        return InputError(problem, file=file, fix=_ELSE)
    if kind == "ValueError":
        return InputError(message, file=file, fix="Give a file of tensors alone: adapter_model.bin, as PEFT writes it")
    if kind == "MemoryError" or "allocate memory" in message:
        return InputError("asks for far more memory than the file has bytes; nothing was written", file=file, fix=_ELSE)
    first = next((line.strip() for line in message.splitlines() if line.strip()), kind)
    if kind != "UnpicklingError" and "more than build tensors" not in first:
        return InputError(f"is not a sound torch file: {first}", file=file, fix="Copy it again from its source")
    shown = message.rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0].rstrip(".")
    return InputError(f"is a pickle that asks for more than tensors; nothing was written: {shown}", file=file, fix=_ELSE)
