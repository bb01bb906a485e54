"""A device that is pretended on the CPU, and counts what a GPU would be asked for and how often it would be waited for.

    with pretended_device() as device:
        move(model)                       # its parameters and buffers
        ... train ...
        device.counts                     # Counts(launches, synchronisations, by operation)

A tensor of the device reports `cuda:0`, and holds its values in a tensor of the CPU. Torch itself takes it for a meta tensor, so
that autograd asks no driver. Every operation on such tensors comes by here, is done on the CPU, and is counted:

    launches            each operation that computes or copies, once; views and `empty` are free. A `_foreach` or fused operation
                        and `cat` count as often as torch launches CUDA kernels for so many tensors. An operation that takes
                        several kernels (a sort, a sum of very many values) counts once, so the counts are lower bounds
    synchronisations    the host waits: it reads a value (`item`, `tolist`, `cpu`, an `if`), needs a shape that depends on values
                        (`nonzero`, a boolean index), or copies from memory that is not pinned
    mixing              an operation on tensors of the device and the CPU, which CUDA refuses, raises `RuntimeError`
"""

from __future__ import annotations

import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

aten = torch.ops.aten

NAME = torch.device("cuda", 0)
"""What the device calls itself."""

_META = torch.device("meta")
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view", "detach_", "set_"}
_FREE |= {"resize_", "_local_scalar_dense", "t_", "transpose_", "squeeze_", "unsqueeze_"}
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "bincount", "unique_consecutive"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_ROOMS = ("/transformers/", "/src/pomona/")
_CHUNK, _MOST_CHUNKS = 65536, 320
_MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors of one launch by how many lists of tensors a `_foreach` operation has (ATen's MultiTensorApply)."""
_MOST_CAT = 64


@dataclass
class Counts:
    """What was counted since the last `reset`.

    Args:
        launches: operation -> how many kernels of it.
        waits: operation and the file that asked for it -> how many synchronisations.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)

    @property
    def kernels(self) -> int:
        """All launches."""
        return self.launches.total()

    @property
    def synchronisations(self) -> int:
        """All synchronisations."""
        return self.waits.total()


class _OnDevice(Tensor):
    """A tensor of the device: its values are in `held`, a tensor of the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _OnDevice:
        return Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=_META
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportPrivateImportUsage, reportAssignmentType]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(None, func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return NAME

    @property
    def is_cuda(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    @property
    def is_meta(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return False

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: _OnDevice) -> None:
        assert other.shape == self.shape
        self.held = other.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"_OnDevice({self.held!r})"

    def __deepcopy__(self, memo: Any) -> _OnDevice:
        return _OnDevice(self.held.clone())


class _Devices(TorchFunctionMode):
    """Gives torch the name that it knows the device by, and pins memory that no driver pins."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        kwargs = {key: _known(value) for key, value in (kwargs or {}).items()}
        args = [_known(value) for value in args]
        if func is Tensor.pin_memory:
            pinned = args[0].clone()
            pinned.pretends_pinned = True
            return pinned
        if func in (Tensor.tolist, Tensor.numpy) and isinstance(args[0], _OnDevice):
            self._device.wait(func.__name__)
            return func(args[0].held)
        if func is F.scaled_dot_product_attention and isinstance(args[0], _OnDevice):
            return _attention(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == _META:
            del kwargs["device"]
            return func(*args, **kwargs).to(_META)
        if func is Tensor.new_tensor and isinstance(args[0], _OnDevice):
            return args[0].held.new_tensor(*args[1:], **kwargs).to(_META)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """One kernel, as flash attention on a GPU, which reads groups of heads as they are."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (one[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for one in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.where(attn_mask, 0.0, -math.inf).to(query.dtype)
    attend = aten._scaled_dot_product_flash_attention_for_cpu
    return attend(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _known(value: Any) -> Any:
    cuda = (isinstance(value, torch.device) and value.type == "cuda") or (isinstance(value, str) and value.startswith("cuda"))
    return _META if cuda else value


class PretendedDevice(TorchDispatchMode):
    """Does the operations of the device, and counts them while `counts` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def reset(self) -> Counts:
        """Count anew; returns what was counted."""
        before, self.counts = self.counts, Counts()
        return before

    def wait(self, operation: str) -> None:
        """Count a synchronisation, with the file that caused it."""
        lines = [one for one in traceback.extract_stack() if any(room in one.filename for room in _ROOMS)]
        where = next(
            (lines[-1].filename.rpartition(room)[2] for room in _ROOMS if lines and room in lines[-1].filename), "elsewhere"
        )
        self.counts.waits[f"{operation} {where}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(self, func, args, kwargs or {})


def _run(device: PretendedDevice | None, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the values that the tensors of the device hold."""
    flat, layout = tree_flatten((args, kwargs))
    given = [one for one in flat if isinstance(one, Tensor)]
    on_device = any(isinstance(one, _OnDevice) for one in given)
    name = func._schema.name.removeprefix("aten::")
    target = kwargs.get("device")
    makes = (target is not None and torch.device(target) == _META) or (target is None and on_device)
    if not on_device and not makes:
        return func(*args, **kwargs)
    copies = name in ("_to_copy", "copy_")
    foreign = [one for one in given if not isinstance(one, _OnDevice) and one.ndim]
    if on_device and foreign and not copies and not (name in _INDEXED and not foreign[0].dtype == torch.bool):
        raise RuntimeError(f"{func}: tensors of {NAME} and of the CPU")
    if device is not None:
        _count(device, func, name, args, kwargs, flat, makes)
    held = tree_unflatten([one.held if isinstance(one, _OnDevice) else one for one in flat], layout)
    if target is not None:
        held[1]["device"] = torch.device("cpu")
    if held[1].get("pin_memory"):
        held[1]["pin_memory"] = False
    found = func(*held[0], **held[1])
    if name == "_local_scalar_dense" or not (makes or name == "copy_"):
        return found
    returned = [one.alias_info is not None and one.alias_info.is_write for one in func._schema.returns]
    if any(returned):  # in place: what is returned is an argument
        return args[0] if name == "copy_" or len(returned) == 1 else _written(func, args, kwargs)
    return tree_map_only(Tensor, _OnDevice, found)


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The arguments that an operation with several outputs has written."""
    named = dict(zip((one.name for one in func._schema.arguments), args, strict=False)) | kwargs
    return tuple(named[one.name] for one in func._schema.arguments if one.alias_info is not None and one.alias_info.is_write)


def _count(
    device: PretendedDevice, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], flat: Sequence[Any], makes: bool
) -> None:
    tensors = [one for one in flat if isinstance(one, Tensor)]
    returns = func._schema.returns
    is_view = bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    if not is_view and name not in _FREE:
        device.counts.launches[name] += _kernels(name, args)
    if name in _WAITS:
        device.wait(name)
    elif name in _INDEXED and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]):
        device.wait(f"{name} by a mask")
    elif name in _INDEXED and any(one is not None and not isinstance(one, _OnDevice) for one in args[1]):
        device.wait(f"{name} by an index of the host")
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        device.wait(name)
    elif name == "_to_copy" or name == "copy_":
        source, to_device = (args[1], isinstance(args[0], _OnDevice)) if name == "copy_" else (args[0], makes)
        from_device = isinstance(source, _OnDevice)
        pinned = getattr(source, "pretends_pinned", False) and (
            kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
        )
        if from_device != to_device and not (to_device and (pinned or _is_scalar(name, tensors))):
            device.wait("copy to the host" if from_device else "copy from memory that is not pinned")


def _is_scalar(name: str, tensors: Sequence[Tensor]) -> bool:
    """`copy_` of a scalar of the host is a fill."""
    return name == "copy_" and tensors[1].ndim == 0


def _kernels(name: str, args: Sequence[Any]) -> int:
    if name in ("cat", "stack"):
        return math.ceil(len(args[0]) / _MOST_CAT)
    if not name.startswith(("_foreach", "_fused")):
        return 1
    lists = [one for one in args if isinstance(one, list | tuple) and one and isinstance(one[0], Tensor)]
    depth = max(1, min(len(lists), 5))
    kernels, tensors, chunks = 1, 0, 0
    for tensor in lists[0]:
        needed = max(1, math.ceil(tensor.numel() / _CHUNK))
        if tensors == _MOST_TENSORS[depth] or chunks >= _MOST_CHUNKS:
            kernels, tensors, chunks = kernels + 1, 0, 0
        more, chunks = divmod(chunks + needed, _MOST_CHUNKS)
        kernels, tensors = kernels + more, tensors + 1
    return kernels * (2 if name == "_foreach_norm" else 1)


@contextmanager
def pretended_device() -> Iterator[PretendedDevice]:
    """Within the block there is a device `cuda`; see the module."""
    from torch.utils import _foreach_utils as support

    device = PretendedDevice()
    devices: Callable[[], list[str]] = support._get_foreach_kernels_supported_devices
    with (
        mock.patch.object(support, "_get_foreach_kernels_supported_devices", return_value=[*devices(), "meta"]),
        mock.patch.object(support, "_foreach_supported_types", [Tensor, nn.Parameter, _OnDevice]),
        _Devices(device),
        device,
    ):
        yield device


def moved(tensor: Tensor) -> Tensor:
    """The values of a tensor of the CPU, on the device."""
    return _OnDevice(tensor.detach())


def move(module: nn.Module) -> None:
    """Put a module's parameters and buffers on the device, tied ones once."""
    found: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = found.setdefault(
                    id(parameter), nn.Parameter(moved(parameter), requires_grad=parameter.requires_grad)
                )
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = moved(buffer)


def values(tensor: Tensor) -> Tensor:
    """The values of a tensor of the device, without a synchronisation: for a test's own checks."""
    return tensor.held if isinstance(tensor, _OnDevice) else tensor
