"""Fingerprints of what shapes a model's results besides its weights: config, tokenizer with chat template, generation config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_OF_THE_FILE = frozenset({"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype"})
"""Entries that say where and how the files were written; the weights' dtype is in their own fingerprint."""
_OF_A_CALL = frozenset({"truncation", "padding"})
"""Entries of a tokenizer that its latest call has set."""


def settings_prints(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of each: `config`, `tokenizer`, `generation config`."""
    return {
        "config": _print(_without(model.config.to_dict(), _OF_THE_FILE)),
        "tokenizer": _print(_of_tokenizer(tokenizer)),
        "generation config": _print(_without(_generation(model), _OF_THE_FILE)),
    }


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> object:
    """All that makes tokens of texts, and prompts of messages."""
    rust = getattr(tokenizer, "backend_tokenizer", None)
    content = tokenizer.get_vocab() if rust is None else _without(json.loads(rust.to_str()), _OF_A_CALL)
    return [type(tokenizer).__name__, content, dict(tokenizer.special_tokens_map), tokenizer.chat_template]


def _generation(model: PreTrainedModel) -> Mapping[str, Any]:
    found = getattr(model, "generation_config", None)
    return {} if found is None else found.to_dict()


def _without(values: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    return {
        key: _without(value, left_out) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if key not in left_out
    }


def _print(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
