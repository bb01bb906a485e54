"""The files of a PEFT folder, and the keys of its tensors. The only place that knows them.

A linear module's factors are `lora_A.weight` and `lora_B.weight`; an embedding's have other names and no `.weight`.
"""

from __future__ import annotations

import re

TENSOR_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

LONGEST_KEY = 500
"""Characters that a tensor's name may have."""

_PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?:(?P<linear>[AB])\.weight|embedding_(?P<embedding>[AB]))")
_COPY = re.compile(r"base_model\.model\.(?P<module>.+)\.base_layer\.weight")
# Parts with single dots between; torch counts 0, 1, 2, so `layers.00` could only be a second spelling of `layers.0`.
_NAME = re.compile(r"(?!0\d)[^\s.]+(?:\.(?!0\d)[^\s.]+)*")


def keys_of(module: str, *, embedding: bool) -> tuple[str, str]:
    """The keys of a module's A and B."""
    if embedding:
        return f"{_PREFIX}{module}.lora_embedding_A", f"{_PREFIX}{module}.lora_embedding_B"
    return f"{_PREFIX}{module}.lora_A.weight", f"{_PREFIX}{module}.lora_B.weight"


def parse_key(key: str) -> tuple[str, str, bool] | None:
    """(module, "A" or "B", whether it is an embedding's) of a factor's key; None for any other key."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    return match["module"], match["linear"] or match["embedding"], match["embedding"] is not None


def copied_module(key: str) -> str | None:
    """The adapted module of whose frozen weight this key holds a copy (PEFT's `save_embedding_layers`); None for other keys."""
    match = _COPY.fullmatch(key)
    return match["module"] if match else None


def is_name(key: str) -> bool:
    """Whether a tensor's name can be one that torch gives: printable parts, single dots between, no number with zeros before."""
    return len(key) <= LONGEST_KEY and key.isprintable() and _NAME.fullmatch(key) is not None
