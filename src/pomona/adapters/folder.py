"""Read and write the PEFT folder: `adapter_config.json` and `adapter_model.safetensors`. The only place that knows PEFT's keys.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pomona.adapters.config import CONFIG_FILE, LoraConfig, plain_config, read_config
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.order import model_order
from pomona.adapters.tensors import TensorFile, TensorInfo
from pomona.errors import InputError, PomonaError

TENSOR_FILE = "adapter_model.safetensors"
_PICKLE_FILE = "adapter_model.bin"
_PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})

# Part of a key -> (why a tensor of this name is refused, what to do)
_REFUSED_KEYS: Mapping[str, tuple[str, str]] = {
    ".lora_magnitude_vector": ("a DoRA magnitude: the adapter is not a low-rank update", "Train it again with use_dora false"),
    ".lora_embedding_": ("LoRA on an embedding cannot be merged yet", "Train it again with linear modules as target_modules"),
    ".lora_B.bias": ("a bias of lora_B, which a merge would lose", "Train it again with lora_bias false"),
    ".lora_": ("a tensor that is no lora_A.weight or lora_B.weight", "Save the adapter with PEFT's save_pretrained"),
}
_WHOLE_WEIGHT = (
    "not a LoRA factor but a weight of the model itself",
    "Train without modules_to_save and bias, and save with save_embedding_layers false",
)


class FolderFactors(Mapping[str, Factors]):
    """The factors in a PEFT folder: shapes are known, tensors are read when a module is asked for, and nothing is kept."""

    def __init__(self, tensors: TensorFile, config: LoraConfig, modules: tuple[str, ...]) -> None:
        self._tensors = tensors
        self._config = config
        self._modules = dict.fromkeys(modules)

    def __getitem__(self, module: str) -> Factors:
        if module not in self._modules:
            raise KeyError(module)
        a_key, b_key = _keys(module)
        return Factors(self._tensors.read(a_key), self._tensors.read(b_key), self._config.scaling(module))

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, module: object) -> bool:
        return module in self._modules

    def shape(self, module: str) -> tuple[int, int]:
        """(O, I) of a module, without reading its tensors."""
        a_key, b_key = _keys(module)
        return self._tensors.info[b_key].shape[0], self._tensors.info[a_key].shape[1]


def read_adapter(path: Path | str) -> Adapter:
    """Open a PEFT LoRA folder.

    Config and header (keys, shapes, dtypes, ranks) are checked at once; tensors are read, and their values checked, when a
    module is asked for. Modules come in the model's order (`model_order`), whatever their order in the file.

    Args:
        path: the folder that holds `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        An adapter whose provenance holds `path` and `fan_in_fan_out`.

    Raises:
        InputError: anything that cannot be read as plain LoRA factors of linear modules, with the reason and what to do.
    """
    folder = Path(path)
    config_file, tensor_file = _files(folder)
    config = read_config(config_file)
    tensors = TensorFile(tensor_file)
    modules = _check_header(tensors, config)
    provenance = {"path": str(folder), "fan_in_fan_out": config.fan_in_fan_out}
    return Adapter(FolderFactors(tensors, config, modules), config.base_model, provenance)


def check_finite(adapter: Adapter) -> None:
    """Look at every value of an adapter, one module at a time.

    Raises:
        InputError: a factor holds NaN or infinite values; names the file or the module.
    """
    for module in adapter:
        factors = adapter[module]
        for side, matrix in (("A", factors.A), ("B", factors.B)):
            if not torch.isfinite(matrix).all():
                raise InputError("holds NaN or infinite values", file=_origin(adapter), field=f"{module} {side}")


def write_adapter(adapter: Adapter, path: Path | str, *, force: bool = False) -> None:
    """Write an adapter as a PEFT folder that loads without Pomona. The folder appears whole or not at all.

    One rank `r` (the largest; smaller modules get zero rows in A and zero columns in B), `lora_alpha = r`, so the scaling is 1
    and each module's own scaling is folded into B. Factors keep their dtype where their scaling is 1 (their values are then
    written bit for bit); other factors are written in fp32. `fan_in_fan_out` is taken from the provenance.

    Args:
        adapter: what to write; every module's factors are read once.
        path: the folder to make; missing parent folders are made too.
        force: replace an adapter folder that stands there. It is moved aside first, and comes back if the new one cannot take its
            place.

    Raises:
        InputError: something stands at `path` and `force` is not given, or it is not an adapter folder; the adapter has no
            modules; the disk refuses.
        PomonaError: a value is NaN or infinite after the scaling is folded in.
    """
    target = Path(path).resolve()
    refuse_occupied(target, force=force)
    tensors, rank = _plain_tensors(adapter)
    fan_in_fan_out = bool(adapter.provenance.get("fan_in_fan_out", False))
    config = plain_config(rank, adapter.modules, base_model=adapter.base_model, fan_in_fan_out=fan_in_fan_out)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(tensors, partial / TENSOR_FILE, metadata={"format": "pt"})
        _put_in_place(partial, target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keys(module: str) -> tuple[str, str]:
    return f"{_PREFIX}{module}.lora_A.weight", f"{_PREFIX}{module}.lora_B.weight"


def _origin(adapter: Adapter) -> str | None:
    path = adapter.provenance.get("path")
    return None if path is None else str(path)


def _files(folder: Path) -> tuple[Path, Path]:
    if not folder.exists():
        raise InputError("no such folder", file=folder, mend=f"Give a folder that holds {CONFIG_FILE} and {TENSOR_FILE}")
    if not folder.is_dir():
        raise InputError("is a file", file=folder, mend=f"Give the folder that holds {CONFIG_FILE} and {TENSOR_FILE}")
    config_file, tensor_file = folder / CONFIG_FILE, folder / TENSOR_FILE
    if not config_file.is_file():
        inner = next(iter(sorted(folder.glob(f"*/{CONFIG_FILE}"))), None)
        mend = f"Give {inner.parent}" if inner else "Give the folder of a PEFT adapter"
        raise InputError(f"has no {CONFIG_FILE}", file=folder, mend=mend)
    if not tensor_file.is_file():
        if (folder / _PICKLE_FILE).exists():
            mend = "Load it with PEFT where you trust it and save it again with save_pretrained(safe_serialization=True)"
            raise InputError("is a pickle, which can run code and is never opened", file=folder / _PICKLE_FILE, mend=mend)
        raise InputError(f"has no {TENSOR_FILE}", file=folder, mend="Copy the adapter again from its source")
    return config_file, tensor_file


def _check_header(tensors: TensorFile, config: LoraConfig) -> tuple[str, ...]:
    sides: dict[str, dict[str, TensorInfo]] = {}
    for key, info in tensors.info.items():
        match = _KEY.fullmatch(key)
        if match is None:
            problem, mend = next((reason for part, reason in _REFUSED_KEYS.items() if part in key), _WHOLE_WEIGHT)
            raise InputError(problem, file=tensors.file, field=key, mend=mend)
        if len(info.shape) != 2 or 0 in info.shape:
            raise InputError(
                "is not a matrix", file=tensors.file, field=key, value=info.shape, mend="Only linear modules can be merged"
            )
        if info.dtype not in _FLOATING:
            raise InputError("has a dtype that is not fp32, fp16 or bf16", file=tensors.file, field=key, value=info.dtype)
        sides.setdefault(match["module"], {})[match["side"]] = info
    if not sides:
        raise InputError("holds no LoRA tensors", file=tensors.file, mend="Save the adapter with PEFT's save_pretrained")
    modules = tuple(sorted(sides, key=model_order))
    for module in modules:
        _check_pair(tensors.file, module, sides[module], config.rank(module))
    return modules


def _check_pair(file: Path, module: str, pair: Mapping[str, TensorInfo], rank: int) -> None:
    for present, missing in (("A", "B"), ("B", "A")):
        if missing not in pair:
            raise InputError(f"has lora_{present} but no lora_{missing}", file=file, field=module, mend="Save the adapter again")
    a_shape, b_shape = pair["A"].shape, pair["B"].shape
    if a_shape[0] != b_shape[1]:
        raise InputError(f"lora_A {a_shape} and lora_B {b_shape} are not [r, in] and [out, r]", file=file, field=module)
    if a_shape[0] != rank:
        problem = f"has rank {a_shape[0]}, but {CONFIG_FILE} says {rank}"
        raise InputError(problem, file=file, field=module, mend="Correct r or rank_pattern in the config")


def _plain_tensors(adapter: Adapter) -> tuple[dict[str, Tensor], int]:
    if len(adapter) == 0:
        raise InputError("the adapter has no modules", file=_origin(adapter), mend="Give at least one adapted module")
    factors_of = {module: adapter[module] for module in adapter}
    rank = max(1, *(factors.rank for factors in factors_of.values()))
    tensors: dict[str, Tensor] = {}
    for module, factors in factors_of.items():
        A_RI, B_OR = factors.A.detach(), factors.B.detach()
        if factors.scaling != 1.0:
            A_RI, B_OR = A_RI.float(), B_OR.float() * factors.scaling
        for matrix in (A_RI, B_OR):
            if not torch.isfinite(matrix).all():
                raise PomonaError("has NaN or infinite values, nothing was written", field=module)
        a_key, b_key = _keys(module)
        # Fresh tensors always: what is saved must be contiguous, on the CPU, and share no memory.
        tensors[a_key] = torch.zeros(rank, factors.in_features, dtype=A_RI.dtype)
        tensors[a_key][: factors.rank] = A_RI
        tensors[b_key] = torch.zeros(factors.out_features, rank, dtype=B_OR.dtype)
        tensors[b_key][:, : factors.rank] = B_OR
    return tensors, rank


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def refuse_occupied(target: Path, *, force: bool) -> None:
    """What `write_adapter` asks before it writes, for those who work long before they write.

    Args:
        target: the folder to write.
        force: replace an adapter folder that stands there.

    Raises:
        InputError: something stands there and `force` is not given, or it is not an adapter folder.
    """
    if not target.exists() or _is_empty_folder(target):
        return
    if not force:
        raise InputError("already exists", file=target, mend="Choose another folder, or give --force (force=True) to replace it")
    if not (target / CONFIG_FILE).is_file():
        # Replacing deletes what stands there: never a folder of other things.
        raise InputError("is not an adapter folder and will not be replaced", file=target, mend="Choose another folder")


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.exists() or _is_empty_folder(target):
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
