"""One module, two names: transformers 5 renamed the modules of models that see or hear as well as read.

`language_model.model.layers.0` (transformers 4) and `model.language_model.layers.0` (transformers 5) are one module. PEFT renames
the keys of factors while it loads them, and does not rename the entries of `target_modules`. Adapters are read under the newer
names, where the path alone says what it is. `model.layers.0`, the older name of `model.language_model.layers.0` in Qwen2-VL, is the
present name of the same layer in a model that only reads: there it takes the base model to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HEADS = frozenset({"lm_head", "embed_out"})
"""Last parts of the paths of output heads."""
EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tokens_embed"})
"""Last parts of the paths of token embeddings."""

# Older name -> newer name, and back. BLIP-2 keeps `language_model.model.decoder` (OPT's), so it is none of these.
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
# Newer name -> other older names, which are themselves names of other models.
_SHARED = (
    (re.compile(r"model\.language_model\.(.+)"), r"model.\1"),
    (re.compile(r"model\.visual\.(.+)"), r"visual.\1"),
    (re.compile(r"model\.vision_tower\.(?!vision_model\.)(.+)"), r"vision_tower.vision_model.\1"),
    (re.compile(r"model\.vision_tower\.(?!vision_model\.)(.+)"), r"model.vision_tower.vision_model.\1"),
)
# Parts that only say in which model a module is.
_WRAPPERS = frozenset({"model", "language_model", "vision_model", "transformer"})


def last_part(path: str) -> str:
    """The last part of a dotted path."""
    return path.rpartition(".")[2]


def newer_spelling(module: str) -> str:
    """The name that transformers 5 gives a module, where the path alone says that it is an older one; else the path itself."""
    return _first(_RENAMED, module) or module


def older_spelling(module: str) -> str | None:
    """The name of which `newer_spelling` would make this one; None where there is none."""
    return _first(_BACK, module)


def older_spellings(module: str) -> list[str]:
    """All the names that transformers 4 may have given a module of transformers 5."""
    shared = [pattern.sub(name, module) for pattern, name in _SHARED if pattern.fullmatch(module)]
    older = older_spelling(module)
    return shared if older is None else [older, *shared]


def two_spellings(first: Iterable[str], second: Iterable[str]) -> tuple[str, str] | None:
    """A module of each of two adapters that may well be one under two names, where only the base model could tell; else None."""
    one, other = set(first), set(second)
    known = {_bare(module): module for module in one - other}
    return next(((known[_bare(module)], module) for module in sorted(other - one) if _bare(module) in known), None)


def _bare(module: str) -> tuple[str, ...]:
    """The path without the parts that only say in which model it is."""
    parts = module.split(".")
    return (*(part for part in parts[:-1] if part not in _WRAPPERS), parts[-1])


def _first(rules: tuple[tuple[re.Pattern[str], str], ...], module: str) -> str | None:
    return next((pattern.sub(name, module) for pattern, name in rules if pattern.fullmatch(module)), None)
