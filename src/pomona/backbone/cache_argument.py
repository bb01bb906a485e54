"""What a model calls its cache of keys and values: `cache` from transformers 5.24 on, `past_key_values` before."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cache_argument(model: PreTrainedModel) -> str:
    """The name of the argument of `model(...)`, which is also the cache's name among the arguments of a decoding loop."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
