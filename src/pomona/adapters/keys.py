"""The files of a PEFT folder, and the keys of its tensors. The only place that knows them.

A linear module's factors are `lora_A.weight` and `lora_B.weight`; an embedding's have other names and no `.weight`. PEFT writes
`base_model.model.` in front of the module's path in the bare model. Keys that were saved from a model within others have more in
their paths, and those of a raw state dict have the adapter's name in them. They name a module just as well, and what is odd about
them is told apart, so that a reader can say how PEFT takes them.
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
# What torch puts into a module's path where it compiles, shards or checkpoints it, and PEFT where it adapts a module again.
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
# Parts with single dots between; torch counts 0, 1, 2, so `layers.00` could only be a second spelling of `layers.0`.
_NAME = re.compile(r"(?!0\d)[^\s.]+(?:\.(?!0\d)[^\s.]+)*")


class FactorKey(NamedTuple):
    """What a factor's key says.

    Args:
        module: the module's path in the bare model.
        side: "A" or "B".
        embedding: whether it is an embedding's.
        prefix: what stands in front of the path: `PREFIX` as PEFT writes it, and anything else where more or less was around the
            model when it was saved.
        wrappers: parts within the path that name no module of the bare model.
        adapter: the adapter's name, where the key has it.
        trained_as: the module's path in the model that PEFT was given, which the config's patterns were matched against.
    """

    module: str
    side: str
    embedding: bool
    prefix: str
    wrappers: frozenset[str]
    adapter: str | None
    trained_as: str


def keys_of(module: str, *, embedding: bool) -> tuple[str, str]:
    """The keys of a module's A and B, as PEFT writes them."""
    if embedding:
        return f"{PREFIX}{module}.lora_embedding_A", f"{PREFIX}{module}.lora_embedding_B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def parse_key(key: str, *, wrapped: bool = False) -> FactorKey | None:
    """What a factor's key says; None for any other key.

    Args:
        key: the tensor's name.
        wrapped: `base_layer` at the end of the path is a part of the module's: it tells apart the bare parameters of one module.
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
    """What stands in front of a whole tensor's parameter, and the parameter in the bare model; None for what PEFT names otherwise.

    A raw state dict has `modules_to_save.<adapter's name>` within the path.
    """
    prefix, parameter, _ = _unwrapped(_SAVED.sub(".", key))
    if not parameter.endswith((".weight", ".bias")) or any(part in f".{parameter}" for part in _NO_PARAMETER):
        return None
    return prefix, parameter


def is_original(key: str) -> bool:
    """Whether a key is of the base's own module beside one that was trained (PEFT's `ModulesToSaveWrapper`)."""
    return ".original_module." in key


def copied_module(key: str) -> str | None:
    """The adapted module of whose frozen weight this key holds a copy (PEFT's `save_embedding_layers`); None for other keys."""
    match = _COPY.fullmatch(key)
    return _unwrapped(match["path"])[1] or None if match else None


def is_name(key: str) -> bool:
    """Whether a tensor's name can be one that torch gives: printable parts, single dots between, no number with zeros before."""
    return len(key) <= LONGEST_KEY and key.isprintable() and _NAME.fullmatch(key) is not None


def _unwrapped(path: str) -> tuple[str, str, frozenset[str]]:
    """What stands in front of a path, the path in the bare model, and the parts within it that name no module of that model."""
    match = _LEADING.match(f"{path}.")
    prefix = match[0] if match else ""
    parts = path.removeprefix(prefix).split(".") if len(path) >= len(prefix) else []
    return prefix, ".".join(part for part in parts if part not in _WRAPPERS), _WRAPPERS.intersection(parts)
