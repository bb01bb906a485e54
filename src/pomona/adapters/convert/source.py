"""Recognise an input: a PEFT or mlx-lm adapter, in a safetensors file or a pickle, or a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pomona.adapters.config import CONFIG_FILE, read_json_object
from pomona.adapters.export.base import CONFIG
from pomona.adapters.export.checkpoint import INDEX, SINGLE
from pomona.adapters.keys import PICKLE_FILE, TENSOR_FILE
from pomona.adapters.not_peft import MLX_FILE, by_number
from pomona.errors import InputError
from pomona.plain_files import refuse_special

_READS = (
    f"Give a folder with {CONFIG_FILE} and {TENSOR_FILE}, {PICKLE_FILE} or {MLX_FILE}, or a model folder with {CONFIG} and {SINGLE}"
)


@dataclass(frozen=True)
class Source:
    """An input that was recognised and not yet read.

    Args:
        kind: adapter or whole model.
        folder: its folder.
        file: the file with the adapter's tensors; the folder of a model.
        config: `adapter_config.json` or `config.json`.
    """

    kind: Literal["adapter", "model"]
    folder: Path
    file: Path
    config: Mapping[str, object]


def find_source(path: Path) -> Source:
    """The input at a path: a folder, or a file in it.

    Raises:
        InputError: the path has nothing that can be converted; the error says what it has.
    """
    if not path.exists():
        raise InputError("no such file or folder", file=path, fix=_READS)
    refuse_special(path)
    if path.is_file():
        return _from_file(path)
    if (path / CONFIG_FILE).is_file():
        files = [path / name for name in (TENSOR_FILE, MLX_FILE, PICKLE_FILE) if (path / name).is_file()]
        if files:
            return Source("adapter", path, files[0], read_json_object(path / CONFIG_FILE))
        if not _is_model(path):
            raise InputError(f"has {CONFIG_FILE} and no tensors that are read here", file=path, fix=_READS)
    if _is_model(path):
        return _model(path)
    raise _nothing(path)


def _from_file(path: Path) -> Source:
    folder = path.parent
    if path.name in {SINGLE, INDEX, CONFIG}:
        return _model(folder)
    if path.suffix not in {".bin", ".safetensors"}:
        raise InputError("is no file that can be converted", file=path, fix=_READS)
    if not (folder / CONFIG_FILE).is_file():
        fix = f"Put the adapter's {CONFIG_FILE} beside it: the scaling is not in the tensors"
        raise InputError(f"has no {CONFIG_FILE} beside it", file=path, fix=fix)
    return Source("adapter", folder, path, read_json_object(folder / CONFIG_FILE))


def _is_model(folder: Path) -> bool:
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def _model(folder: Path) -> Source:
    if not (folder / CONFIG).is_file():
        raise InputError(f"has no {CONFIG}", file=folder, fix="Give the whole model folder, as save_pretrained writes it")
    return Source("model", folder, folder, read_json_object(folder / CONFIG))


def _nothing(folder: Path) -> InputError:
    if any(folder.glob("pytorch_model*.bin")):
        fix = "Load it with transformers where you trust it, and save it again with save_pretrained, which writes safetensors"
        return InputError("is a whole model in pickles, which are read for adapters only", file=folder, fix=fix)
    tensors = next((name for name in (TENSOR_FILE, PICKLE_FILE, MLX_FILE) if (folder / name).is_file()), None)
    if tensors is not None:
        fix = f"Copy the adapter's {CONFIG_FILE} to it: the scaling is not in {tensors}"
        return InputError(f"has {tensors} and no {CONFIG_FILE}", file=folder, fix=fix)
    inner = sorted((one for one in folder.iterdir() if (one / CONFIG_FILE).is_file()), key=by_number)
    if inner:
        shown = ("..., " if len(inner) > 5 else "") + ", ".join(one.name for one in inner[-5:])
        return InputError(f"holds adapters in folders: {shown}", file=folder, fix=f"Give one of them: {inner[-1]}")
    return InputError("holds neither an adapter nor a model", file=folder, fix=_READS)
