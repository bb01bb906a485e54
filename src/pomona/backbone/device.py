"""What the device at hand is, in which precision a model is loaded onto it, and what is said of a GPU that is not used."""

from __future__ import annotations

from pathlib import Path

import torch

from pomona.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
"""What an NVIDIA driver makes on Linux, whether or not torch can use it."""


def resolve_dtype(name: str, place: torch.device) -> torch.dtype:
    """The precision of frozen weights.

    Args:
        name: a name in `DTYPES`; or `auto`: bfloat16 on an accelerator that computes in it, else float32.
        place: the device.

    Raises:
        InputError: neither.
    """
    if name == "auto":
        return torch.bfloat16 if computes_in_bfloat16(place) else torch.float32
    if name not in DTYPES:
        raise InputError("unknown dtype", field="dtype", value=name, fix=f"Use one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def computes_in_bfloat16(place: torch.device) -> bool:
    """Whether a device is an accelerator whose hardware multiplies in bfloat16."""
    if place.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return place.type in ("xpu", "npu")


def use_tensor_cores(place: torch.device, dtype: torch.dtype) -> None:
    """Beside weights in half precision, let a GPU make the adapters' float32 products in TF32, which rounds less than the weights.

    With `dtype: float32` products stay in float32, as that asks for.
    """
    if place.type == "cuda" and dtype != torch.float32:
        torch.backends.cuda.matmul.allow_tf32 = True


def described(place: torch.device, dtype: torch.dtype) -> str:
    """`bfloat16 on cuda:0 (NVIDIA H200)`, `float32 on cpu`."""
    name = f" ({torch.cuda.get_device_name(place)})" if place.type == "cuda" else ""
    return f"{str(dtype).removeprefix('torch.')} on {place}{name}"


def unused_gpu() -> str | None:
    """A sentence where the machine has an NVIDIA GPU and torch found none that it can use; else None."""
    if not any(file.exists() for file in _NVIDIA):
        return None
    built = torch.version.cuda
    if built is None:
        why = f"torch {torch.__version__} is built without CUDA: install torch's build for CUDA"
    else:
        why = f"torch {torch.__version__} is built for CUDA {built}, which the driver may be too old for: compare `nvidia-smi`"
    return f"this machine has an NVIDIA GPU that is not used, so the model is on the CPU; {why}"
