"""Two names of one module: transformers 5 renamed the modules of multimodal models.

`language_model.model.layers.0` (transformers 4) and `model.language_model.layers.0` (transformers 5) are one module. PEFT renames
the keys of factors at loading, but not the entries of `target_modules`. Adapters are read with the newer names if the path alone
identifies an older name. `model.layers.0`, the older name of `model.language_model.layers.0` in Qwen2-VL, is the current name of a
layer in text models: there the base model decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HEADS = frozenset({"lm_head", "embed_out"})
"""Last parts of the paths of output heads."""
EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tokens_embed"})
"""Last parts of the paths of token embeddings."""

# Older name -> newer name, and back. BLIP-2 keeps `language_model.model.decoder` (OPT's), so it is not in the table.
_RENAMED = (
    (re.compile(r"language_model\.model\.(?!model\.|decoder\.|encoder\.)(.+)"), r"model.language_model.\1"),
    (re.compile(r"language_model\.lm_head"), "lm_head"),
    (re.compile(r"(vision_tower|multi_modal_projector|audio_tower)\.(.+)"), r"model.\1.\2"),
)
_BACK = (
    (re.compile(r"model\.language_model\.(.+)"), r"language_model.model.\1"),
    (re.compile(r"lm_head"), "language_model.lm_head"),
    (re.compile(r"model\.(vision_tower|multi_modal_projector|audio_tower)\.(.+)"), r"\1.\2"),
)
# Newer name -> other older names, which other models use as current names.
_SHARED = (
    (re.compile(r"model\.language_model\.(.+)"), r"model.\1"),
    (re.compile(r"model\.visual\.(.+)"), r"visual.\1"),
    (re.compile(r"model\.vision_tower\.(?!vision_model\.)(.+)"), r"vision_tower.vision_model.\1"),
    (re.compile(r"model\.vision_tower\.(?!vision_model\.)(.+)"), r"model.vision_tower.vision_model.\1"),
)
# Parts that only name the model of a module.
_WRAPPERS = frozenset({"model", "language_model", "vision_model", "transformer"})


def last_part(path: str) -> str:
    """The last part of a dotted path."""
    return path.rpartition(".")[2]


def newer_spelling(module: str) -> str:
    """The module's name in transformers 5 if the path alone shows that it is an older name; else the path itself."""
    return _first(_RENAMED, module) or module


def older_spelling(module: str) -> str | None:
    """The name that `newer_spelling` converts to this one; None if there is none."""
    return _first(_BACK, module)


def older_spellings(module: str) -> list[str]:
    """All possible names in transformers 4 of a module of transformers 5."""
    shared = [pattern.sub(name, module) for pattern, name in _SHARED if pattern.fullmatch(module)]
    older = older_spelling(module)
    return shared if older is None else [older, *shared]


def two_spellings(first: Iterable[str], second: Iterable[str]) -> tuple[str, str] | None:
    """Modules of two adapters that may be one module with two names, which only the base model can decide; else None."""
    one, other = set(first), set(second)
    known = {_bare(module): module for module in one - other}
    return next(((known[_bare(module)], module) for module in sorted(other - one) if _bare(module) in known), None)


def _bare(module: str) -> tuple[str, ...]:
    """The path without the parts that only name the model."""
    parts = module.split(".")
    return (*(part for part in parts[:-1] if part not in _WRAPPERS), parts[-1])


def _first(rules: tuple[tuple[re.Pattern[str], str], ...], module: str) -> str | None:
    return next((pattern.sub(name, module) for pattern, name in rules if pattern.fullmatch(module)), None)
