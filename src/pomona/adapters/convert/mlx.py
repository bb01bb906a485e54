"""Adapters of mlx-lm: the factors are transposed, and `scale` is the scaling itself.

The format as this file assumes it (mlx-lm's `tuner/lora.py`, `dora.py` and `utils.py`). `y = x W^T + scale (x a) b` with `lora_a`
[in, r] and `lora_b` [r, out], for an embedding [vocabulary, r] and [r, hidden]. A DoRA rescales the rows of the changed weight to
the norms `m`, one per output feature, or one per token for an embedding. `fine_tune_type: full` stores whole tensors of the
trained layers under their names in the model. Older versions had `alpha` beside `scale`, and scaled by `scale alpha / rank`; they
called the number of layers `lora_layers` instead of `num_layers`.

Axes: O output features, I input features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pomona.adapters.config import plain_config
from pomona.adapters.convert.plain import Plain, write_config
from pomona.adapters.keys import TENSOR_FILE, keys_of
from pomona.adapters.names import EMBEDDINGS, last_part
from pomona.adapters.tensors import DTYPES, TensorFile, TensorInfo, write_tensors
from pomona.errors import InputError

_KEY = re.compile(r"(?P<module>.+)\.(?P<side>lora_a|lora_b|m)")


def is_mlx(config: Mapping[str, object], tensors: TensorFile) -> bool:
    """Whether mlx-lm wrote an adapter: its keys or its config are not PEFT's."""
    return any(key.endswith(".lora_a") for key in tensors.info) or is_mlx_full(config)


def is_mlx_full(config: Mapping[str, object]) -> bool:
    """Whether the folder contains whole tensors of a model instead of factors."""
    return config.get("fine_tune_type") == "full" and "peft_type" not in config


def split_mlx(config: Mapping[str, object], tensors: TensorFile, folder: Path, config_file: Path, scaling: float | None) -> Plain:
    """Write the factors of an mlx-lm adapter into a folder in PEFT's format, without changing a value.

    Args:
        config: mlx-lm's `adapter_config.json`.
        tensors: its `adapters.safetensors`.
        folder: where to write.
        config_file: the config's path, for errors.
        scaling: the scaling given by the user; None: that of the config.

    Raises:
        InputError: the tensors are not pairs of matrices, or the scaling is unknown.
    """
    modules, magnitudes = _modules(tensors)
    dora = config.get("fine_tune_type") == "dora"
    if bool(magnitudes) != dora:
        problem = f"is {config.get('fine_tune_type')!r}, but there are {'magnitudes' if magnitudes else 'no magnitudes'} (m)"
        fix = "Correct it to dora or lora, as it was trained"
        raise InputError(problem, file=config_file, field="fine_tune_type", fix=fix)
    layout: dict[str, TensorInfo] = {}
    origin: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for module in modules:
        for side, key in zip("ab", keys_of(module, embedding=_is_embedding(module)), strict=True):
            name = f"{module}.lora_{side}"
            info = tensors.info[name]
            layout[key], origin[key] = TensorInfo(info.shape[::-1], info.dtype), name
        ranks[module] = tensors.info[f"{module}.lora_a"].shape[1]
    rank = max(ranks.values())
    if len(set(ranks.values())) > 1:
        low = min(ranks, key=lambda module: ranks[module])
        raise InputError("has another rank than other modules", file=tensors.file, field=low, value=ranks[low])
    scale = _scaling(config, config_file, rank) if scaling is None else scaling
    plain = plain_config(rank, tuple(modules), base_model=_base_model(config), fan_in_fan_out=False)
    alpha = scale * rank
    plain["lora_alpha"] = int(alpha) if alpha == int(alpha) else alpha
    write_config(folder, plain)
    write_tensors(folder / TENSOR_FILE, layout, ((key, tensors.read(origin[key])[0].T.contiguous()) for key in layout))
    embeddings = frozenset(filter(_is_embedding, modules))
    read = {module: tensors.read(f"{module}.m")[0] for module in magnitudes} if dora else None
    return Plain("mlx-lm DoRA" if dora else "mlx-lm LoRA", plain, read, embeddings, _warnings(embeddings))


def _modules(tensors: TensorFile) -> tuple[list[str], list[str]]:
    """The modules with both factors, and the modules with magnitudes: all of them or none."""
    sides: dict[str, set[str]] = {}
    for key, info in tensors.info.items():
        match = _KEY.fullmatch(key)
        if match is None:
            fix = "Give an adapter that was trained with fine_tune_type lora or dora"
            raise InputError("is neither lora_a, lora_b nor m of a module", file=tensors.file, field=key, fix=fix)
        if len(info.shape) == 3:
            fix = "Fuse it with mlx_lm.fuse, and convert the fused model with --base"
            raise InputError("is of fused experts (a switch layer), which are not converted", file=tensors.file, field=key, fix=fix)
        if len(info.shape) != (1 if match["side"] == "m" else 2) or 0 in info.shape or info.dtype not in DTYPES:
            raise InputError("is not a matrix of fp32, fp16 or bf16", file=tensors.file, field=key, value=(info.shape, info.dtype))
        sides.setdefault(match["module"], set()).add(match["side"])
    magnitudes = [module for module, found in sides.items() if "m" in found]
    for module, found in sides.items():
        if missing := {"lora_a", "lora_b", *(["m"] if magnitudes else [])} - found:
            raise InputError(
                f"has no {min(missing)}", file=tensors.file, field=module, fix="Copy the adapter again from its source"
            )
    return list(sides), magnitudes


def _scaling(config: Mapping[str, object], file: Path, rank: int) -> float:
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise InputError("is missing, so the scaling is unknown", file=file, field="lora_parameters", fix="Give --scaling")
    scale = _number(parameters, "scale", file)
    said = parameters.get("rank")
    if said is not None and said != rank:
        raise InputError(f"is not the rank of the tensors, {rank}", file=file, field="lora_parameters.rank", value=said)
    if parameters.get("alpha") is None:
        return scale
    old = scale * _number(parameters, "alpha", file) / rank
    if ("lora_layers" in config and "num_layers" not in config) or old == scale:
        return old
    problem = f"older versions of mlx-lm use scale alpha / rank = {old:g} as the scaling, newer versions use scale = {scale:g}"
    fix = f"Give that of the version that trained it: --scaling {old:g} or --scaling {scale:g}"
    raise InputError(problem, file=file, field="lora_parameters.alpha", fix=fix)


def _number(parameters: Mapping[str, object], name: str, file: Path) -> float:
    value = parameters.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e30:
        fix = "Correct it, or give --scaling"
        raise InputError("must be a finite number", file=file, field=f"lora_parameters.{name}", value=value, fix=fix)
    return value


def _base_model(config: Mapping[str, object]) -> str | None:
    found = config.get("base_model_name_or_path") or config.get("model")
    return found if isinstance(found, str) else None


def _is_embedding(module: str) -> bool:
    return last_part(module) in EMBEDDINGS


def _warnings(embeddings: frozenset[str]) -> tuple[str, ...]:
    if not embeddings:
        return ()
    return (
        "the adapter changes the token embedding: where the base model ties its output head to it, mlx-lm changes the head too, "
        "and the written adapter does not",
    )
