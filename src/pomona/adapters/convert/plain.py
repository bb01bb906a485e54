"""The first step of every conversion of an adapter: a PEFT folder of plain factors, and separately the magnitudes of a DoRA.

Axes: O output features, I input features.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from pomona.adapters.config import CONFIG_FILE
from pomona.adapters.keys import TENSOR_FILE, parse_key
from pomona.adapters.tensors import TensorFile, write_tensors
from pomona.errors import InputError

_MAGNITUDE = re.compile(r"(?P<path>.+)\.lora_magnitude_vector(?:\.(?!weight$)[^.]+)?(?:\.weight)?")


@dataclass(frozen=True)
class Plain:
    """An adapter in PEFT's format.

    Args:
        kind: the kind of input, in words.
        config: the plain config.
        magnitudes: module -> magnitudes of a DoRA; None if the input is a LoRA already.
        by_token: modules with one magnitude per input feature instead of per output feature: embeddings of mlx-lm.
        warnings: one sentence each.
    """

    kind: str
    config: Mapping[str, object]
    magnitudes: Mapping[str, Float[Tensor, " _"]] | None = None
    by_token: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def split_peft(config: Mapping[str, object], tensors: TensorFile, folder: Path) -> Plain:
    """Write the factors of a PEFT adapter into a folder, bit for bit, without magnitudes.

    Raises:
        InputError: a magnitude belongs to no module, or the config of an adapter with magnitudes does not say DoRA.
    """
    if not config.get("use_dora"):
        if (key := next(filter(_MAGNITUDE.fullmatch, tensors.info), None)) is not None:
            problem = f"is a DoRA magnitude, which PEFT passes over, since use_dora is not true in {CONFIG_FILE}"
            raise InputError(problem, file=tensors.file, field=key, fix="Correct use_dora if it was trained as a DoRA")
        write_config(folder, config)
        shutil.copyfile(tensors.file, folder / TENSOR_FILE)
        return Plain("LoRA", config)
    plain = {**config, "use_dora": False}
    magnitudes: dict[str, Tensor] = {}
    factors: list[str] = []
    for key in tensors.info:
        match = _MAGNITUDE.fullmatch(key)
        if match is None:
            factors.append(key)
            continue
        parsed = parse_key(f"{match['path']}.lora_A.weight")
        if parsed is None:
            raise InputError("is a DoRA magnitude of no module", file=tensors.file, field=key)
        (magnitudes[parsed[0]],) = tensors.read(key)
    write_config(folder, plain)
    layout = {key: tensors.info[key] for key in factors}
    write_tensors(folder / TENSOR_FILE, layout, ((key, tensors.read(key)[0]) for key in factors))
    return Plain("DoRA", plain, magnitudes)


def write_config(folder: Path, config: Mapping[str, object]) -> None:
    """Write `adapter_config.json`."""
    (folder / CONFIG_FILE).write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def named_as(scratch: Path, config_file: Path, tensor_file: Path) -> Iterator[None]:
    """Replace the paths of temporary files in errors by the paths that the user gave."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for folder in ("plain", "pickle"):
            text = text.replace(str(scratch / folder / CONFIG_FILE), str(config_file))
            text = text.replace(str(scratch / folder / TENSOR_FILE), str(tensor_file))
            text = text.replace(str(scratch / folder), str(tensor_file.parent))
        if text == str(error):
            raise
        raise InputError(text) from error
