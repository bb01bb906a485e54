"""Detection of quantised base models from `config.json` and the headers of the weights. Reads no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pomona.adapters.export.checkpoint import Checkpoint
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

_FIELDS = ("quantization_config", "compression_config", "quantization")
# Dtypes and names of tensors that are not weights: counts, and attention masks and positions in old checkpoints.
_WHOLE = frozenset({*DTYPES, "I64", "BOOL"})
_BUFFERS = frozenset({"bias", "masked_bias", "position_ids", "token_type_ids"})
_SCALES = (".weight.absmax", ".SCB")
"""Ends of the names of bitsandbytes' scales: of 4-bit and of 8-bit codes."""
_FIX = "Give the model that it was quantised from"


BITSANDBYTES = "bitsandbytes"


def refuse_quantised(config: Mapping[str, object], file: Path | str) -> None:
    """Refuse a model that is quantised by any method according to its `config.json`.

    Args:
        config: the file's content.
        file: its path, for the message.

    Raises:
        InputError: the model is quantised; the error names the field and the method.
    """
    for field, settings in _settings(config):
        problem = f"the model is quantised ({_method(settings)}), and only float weights can be trained beside or added to"
        raise InputError(problem, file=file, field=field, fix=_FIX)


def is_bitsandbytes(config: Mapping[str, object]) -> bool:
    """Whether a `config.json` says that its model is quantised, by bitsandbytes alone."""
    methods = [_method(settings) for _, settings in _settings(config)]
    return bool(methods) and all(method.startswith(BITSANDBYTES) for method in methods)


def refuse_other_quantisers(config: Mapping[str, object], file: Path | str) -> bool:
    """Refuse a model that is quantised by another method than bitsandbytes.

    Args:
        config: the content of `config.json`.
        file: its path, for the message.

    Returns:
        Whether it is quantised by bitsandbytes.

    Raises:
        InputError: another method, whose modules pass no gradient on without kernels of their own; the error names it.
    """
    found = list(_settings(config))
    for field, settings in found:
        if not _method(settings).startswith(BITSANDBYTES):
            problem = f"the model is quantised ({_method(settings)}), and adapters are trained beside bitsandbytes' modules alone"
            fix = f"{_FIX}, with quantization_config: {{load_in_4bit: true}} where memory is short"
            raise InputError(problem, file=file, field=field, fix=fix)
    return bool(found)


def refuse_codes(checkpoint: Checkpoint) -> None:
    """Refuse a model whose files hold quantisation codes instead of float weights, even if its config does not say so.

    Raises:
        InputError: a matrix is stored in a dtype that is not a float dtype.
    """
    for name, stored in checkpoint.tensors.items():
        if len(stored.shape) > 1 and stored.dtype not in _WHOLE and name.rpartition(".")[2] not in _BUFFERS:
            problem = (
                f"is stored as {stored.dtype}, so the model is quantised, and only float weights can be trained beside or added to"
            )
            raise InputError(problem, file=stored.file, field=name, fix=_FIX)


def refuse_without_codes(checkpoint: Checkpoint, config: Path) -> None:
    """Refuse a model whose config says that bitsandbytes quantised it, and whose files hold floats alone.

    Raises:
        InputError: no tensor is a scale of bitsandbytes' codes.
    """
    if not any(name.endswith(_SCALES) for name in checkpoint.tensors):
        problem = "says that the model is quantised by bitsandbytes, and its weights are floats"
        raise InputError(problem, file=config, field=_FIELDS[0], fix=f"Take {_FIELDS[0]} out of it")


def _settings(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Each field with quantisation settings of a model or of its text model."""
    levels = {"": config, **{f"{name}.": part for name, part in config.items() if isinstance(part, dict)}}
    for prefix, level in levels.items():
        if prefix.removesuffix(".") in _FIELDS:
            continue
        for field in _FIELDS:
            if level.get(field):
                yield prefix + field, level[field]


def _method(settings: object) -> str:
    """The quantisation method in the settings: `bitsandbytes, 4-bit`."""
    if not isinstance(settings, Mapping):
        return str(settings)
    flags = {"load_in_4bit": 4, "load_in_8bit": 8}
    bits = next((bits for flag, bits in flags.items() if settings.get(flag)), settings.get("bits", settings.get("w_bit")))
    method = (
        settings.get("quant_method") or settings.get("quant_algo") or (BITSANDBYTES if flags.keys() & settings.keys() else None)
    )
    known = [str(method)] if method else []
    if isinstance(bits, int):
        known.append(f"{bits}-bit")
    return ", ".join(known) or "the method is not named"
