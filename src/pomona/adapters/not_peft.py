"""Diagnosis of a folder without a PEFT adapter, with advice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pomona.adapters.keys import PICKLE_FILE, TENSOR_FILE
from pomona.errors import InputError

MLX_FILE = "adapters.safetensors"
"""The file of an mlx-lm adapter's factors."""
_MLX_FIELDS = ("fine_tune_type", "lora_parameters")
_MODEL_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def refuse_mlx_config(raw: Mapping[str, object], file: Path) -> None:
    """Refuse an `adapter_config.json` that mlx-lm wrote.

    Raises:
        InputError: the config is from mlx-lm.
    """
    field = next((name for name in _MLX_FIELDS if name in raw), None)
    if field is not None and "peft_type" not in raw:
        raise InputError("is the config of an mlx-lm adapter and not of PEFT", file=file, field=field, fix=_conversion(file.parent))


def no_config(folder: Path, config_file: str) -> InputError:
    """The error for a folder without `adapter_config.json`, also in its subfolders."""
    names = {path.name for path in folder.iterdir()}
    gguf = sorted(name for name in names if name.endswith(".gguf"))
    if MLX_FILE in names:
        return _mlx(folder)
    if TENSOR_FILE in names or PICKLE_FILE in names:
        return InputError(f"has no {config_file}, which says how its factors count", file=folder, fix="Copy that file too")
    if "config.json" in names and names.intersection(_MODEL_FILES):
        return _whole_model(folder)
    if gguf:
        problem = f"has no {config_file} but a GGUF file, {gguf[0]}, in llama.cpp's format"
        return InputError(problem, file=folder, fix="Give the PEFT folder that it was made of")
    return InputError(f"has no {config_file}", file=folder, fix="Give the folder of a PEFT adapter")


def no_factors(folder: Path) -> InputError:
    """The error for a folder with a config but without `adapter_model.safetensors`."""
    if (folder / PICKLE_FILE).exists():
        problem = "is a pickle, which can run code and is never opened here"
        return InputError(problem, file=folder / PICKLE_FILE, fix=f"Where you trust it, {_lower(_conversion(folder))}")
    if (folder / MLX_FILE).exists():
        return _mlx(folder)
    if any((folder / name).exists() for name in _MODEL_FILES):
        return _whole_model(folder)
    return InputError(f"has no {TENSOR_FILE}", file=folder, fix="Copy the adapter again from its source")


def by_number(path: Path) -> tuple[tuple[int, int, str], ...]:
    """A sort key for names: `checkpoint-200` comes before `checkpoint-1000`."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)


def _mlx(folder: Path) -> InputError:
    problem = "is an adapter of mlx-lm, whose factors are transposed"
    return InputError(problem, file=folder / MLX_FILE, fix=_conversion(folder))


def _whole_model(folder: Path) -> InputError:
    fix = f"To make an adapter of what a training changed: pomona convert {folder} --to lora --rank R --base BASE --output DIR"
    return InputError("is a whole model and no adapter", file=folder, fix=fix)


def _conversion(folder: Path) -> str:
    return f"Convert it: pomona convert {folder} --output DIR"


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
