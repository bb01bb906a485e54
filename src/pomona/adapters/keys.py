"""The files of a PEFT folder and the keys of its tensors. No other module depends on these names.

A linear module's factors are `lora_A.weight` and `lora_B.weight`; an embedding's have other names and no `.weight`. PEFT writes
`base_model.model.` in front of the module's path in the bare model. Keys saved from a wrapped model have
more parts in their paths, and keys of a raw state dict contain the adapter's name. These keys are parsed too, with their
differences in separate fields, so that a reader can report how PEFT treats them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TENSOR_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

LONGEST_KEY = 500
"""Characters that a tensor's name may have."""

PREFIX = "base_model.model."
"""What PEFT writes in front of a module's path."""
# Parts that torch inserts into a path for compiling, sharding or checkpointing, and PEFT for a repeated adaptation.
_TORCH_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_WRAPPERS = _TORCH_WRAPPERS | {"base_layer"}
_NESTED = ".base_layer"
_LEADING = re.compile(rf"(?:(?:base_model\.model|module|{'|'.join(sorted(_TORCH_WRAPPERS))})\.)*")
_KEY = re.compile(
    r"(?P<path>.+)\.lora_(?:(?P<linear>[AB])(?:\.(?P<name>[^.]+))?\.weight|embedding_(?P<embedding>[AB])(?:\.(?P<other>(?!weight$)[^.]+))?)"
)
_COPY = re.compile(r"(?P<path>.+)\.base_layer\.weight")
_SAVED = re.compile(r"\.modules_to_save\.[^.]+\.")
_NO_PARAMETER = (".lora_", ".token_adapter.", ".prompt_", ".base_model.")
# Parts separated by single dots; torch counts 0, 1, 2, so `layers.00` could only be a second spelling of `layers.0`.
_NAME = re.compile(r"(?!0\d)[^\s.]+(?:\.(?!0\d)[^\s.]+)*")


class FactorKey(NamedTuple):
    """The parts of a factor's key.

    Args:
        module: the module's path in the bare model.
        side: "A" or "B".
        embedding: whether it is an embedding's.
        prefix: the text before the path: `PREFIX` if PEFT wrote it, another text if the model was saved with other wrappers.
        wrappers: parts within the path that do not name a module of the bare model.
        adapter: the adapter's name, if it is in the key.
        trained_as: the module's path in the model given to PEFT, which the config's patterns match.
    """

    module: str
    side: str
    embedding: bool
    prefix: str
    wrappers: frozenset[str]
    adapter: str | None
    trained_as: str


def keys_of(module: str, *, embedding: bool) -> tuple[str, str]:
    """PEFT's keys of a module's A and B."""
    if embedding:
        return f"{PREFIX}{module}.lora_embedding_A", f"{PREFIX}{module}.lora_embedding_B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def parse_key(key: str, *, wrapped: bool = False) -> FactorKey | None:
    """Parse a factor's key; None for any other key.

    Args:
        key: the tensor's name.
        wrapped: keep `base_layer` at the end of the module's path: it distinguishes the bare parameters of one module.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    path, nested = match["path"], ""
    while wrapped and path.endswith(_NESTED):
        path, nested = path.removesuffix(_NESTED), nested + _NESTED
    prefix, module, wrappers = _unwrapped(path)
    if not module or module.startswith("base_model.") or "lora_" in module:
        return None
    side, embedding = match["linear"] or match["embedding"], match["embedding"] is not None
    trained_as = match["path"].partition(PREFIX)[2] or module
    return FactorKey(module + nested, side, embedding, prefix, wrappers, match["name"] or match["other"], trained_as)


def parse_whole(key: str) -> tuple[str, str] | None:
    """The prefix of a full tensor's key and its parameter in the bare model; None for other keys.

    A raw state dict has `modules_to_save.<adapter's name>` within the path.
    """
    prefix, parameter, _ = _unwrapped(_SAVED.sub(".", key))
    if not parameter.endswith((".weight", ".bias")) or any(part in f".{parameter}" for part in _NO_PARAMETER):
        return None
    return prefix, parameter


def is_original(key: str) -> bool:
    """Whether a key is of the base's original module next to a trained copy (PEFT's `ModulesToSaveWrapper`)."""
    return ".original_module." in key


def copied_module(key: str) -> str | None:
    """The adapted module whose frozen weight this key copies (PEFT's `save_embedding_layers`); None for other keys."""
    match = _COPY.fullmatch(key)
    return _unwrapped(match["path"])[1] or None if match else None


def is_name(key: str) -> bool:
    """Whether torch can produce this tensor name: printable parts, separated by single dots, no number with leading zeros."""
    return len(key) <= LONGEST_KEY and key.isprintable() and _NAME.fullmatch(key) is not None


def _unwrapped(path: str) -> tuple[str, str, frozenset[str]]:
    """The prefix of a path, the path in the bare model, and the wrappers within it."""
    match = _LEADING.match(f"{path}.")
    prefix = match[0] if match else ""
    parts = path.removeprefix(prefix).split(".") if len(path) >= len(prefix) else []
    return prefix, ".".join(part for part in parts if part not in _WRAPPERS), _WRAPPERS.intersection(parts)
