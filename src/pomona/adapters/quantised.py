"""Is a base model quantised? From its `config.json` and the headers of its weights: no tensor is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pomona.adapters.export.checkpoint import Checkpoint
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

_FIELDS = ("quantization_config", "compression_config", "quantization")
# Dtypes and names of what is not a weight: counts, and the attention masks and positions that old checkpoints hold.
_WHOLE = frozenset({*DTYPES, "I64", "BOOL"})
_BUFFERS = frozenset({"bias", "masked_bias", "position_ids", "token_type_ids"})
_FIX = "Give the model that it was quantised from"


def refuse_quantised(config: Mapping[str, object], file: Path | str) -> None:
    """Refuse a model whose `config.json` says that it is quantised, whatever the method.

    Args:
        config: the file's content.
        file: its path, for the message.

    Raises:
        InputError: it is; names the field and the method.
    """
    for field, settings in _settings(config):
        problem = f"the model is quantised ({_method(settings)}), and only float weights can be trained beside or added to"
        raise InputError(problem, file=file, field=field, fix=_FIX)


def refuse_codes(checkpoint: Checkpoint) -> None:
    """Refuse a model whose files hold codes in place of float weights, though its config may not say so.

    Raises:
        InputError: a matrix is stored in a dtype that no float weight has.
    """
    for name, stored in checkpoint.tensors.items():
        if len(stored.shape) > 1 and stored.dtype not in _WHOLE and name.rpartition(".")[2] not in _BUFFERS:
            problem = (
                f"is stored as {stored.dtype}, so the model is quantised, and only float weights can be trained beside or added to"
            )
            raise InputError(problem, file=stored.file, field=name, fix=_FIX)


def _settings(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Each field that says how a model, or the text model within it, is quantised."""
    levels = {"": config, **{f"{name}.": part for name, part in config.items() if isinstance(part, dict)}}
    for prefix, level in levels.items():
        if prefix.removesuffix(".") in _FIELDS:
            continue
        for field in _FIELDS:
            if level.get(field):
                yield prefix + field, level[field]


def _method(settings: object) -> str:
    """How it is quantised, as far as the settings say: `bitsandbytes, 4-bit`."""
    if not isinstance(settings, Mapping):
        return str(settings)
    flags = {"load_in_4bit": 4, "load_in_8bit": 8}
    bits = next((bits for flag, bits in flags.items() if settings.get(flag)), settings.get("bits", settings.get("w_bit")))
    method = (
        settings.get("quant_method") or settings.get("quant_algo") or ("bitsandbytes" if flags.keys() & settings.keys() else None)
    )
    known = [str(method)] if method else []
    if isinstance(bits, int):
        known.append(f"{bits}-bit")
    return ", ".join(known) or "the method is not named"
