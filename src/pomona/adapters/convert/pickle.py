"""Read tensors from a pickle in a separate process that does nothing else."""

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
# The pickled number at the start of files that torch wrote before it used zip files.
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def tensors_from_pickle(file: Path, target: Path) -> None:
    """Write the tensors of a `.bin` file as safetensors, bit for bit. Nothing else in the pickle is executed.

    A new Python process reads the file with `torch.load(weights_only=True)`. It has no network, starts no process, opens no other
    file, and gets none of this process's environment variables (see `sandbox`).

    Args:
        file: a state dict that `torch.save` wrote, in the current or the old format.
        target: the safetensors file to write.

    Raises:
        InputError: the pickle requires more than tensors, or is damaged; nothing was executed.
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
    """The environment of the process: one thread, no accelerator, and the variables without which no program starts."""
    fixed = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**{name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}, **fixed}


def _refusal(file: Path, kind: str, message: str) -> InputError:
    if (named := _GLOBAL.search(message)) is not None:
        problem = f"is a pickle that requires {named[1]}, which is not a tensor; nothing was executed or written"
        return InputError(problem, file=file, fix=_ELSE)
    if kind == "ValueError":
        return InputError(message, file=file, fix="Give a file of tensors alone: adapter_model.bin, as PEFT writes it")
    if kind == "MemoryError" or "allocate memory" in message:
        return InputError("requires far more memory than the file has bytes; nothing was written", file=file, fix=_ELSE)
    first = next((line.strip() for line in message.splitlines() if line.strip()), kind)
    if kind != "UnpicklingError" and "more than build tensors" not in first:
        return InputError(f"is not a valid torch file: {first}", file=file, fix="Copy it again from its source")
    shown = message.rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0].rstrip(".")
    return InputError(f"is a pickle that requires more than tensors; nothing was written: {shown}", file=file, fix=_ELSE)
