"""Will another program load this adapter, and if not, why?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pomona.adapters.export import llama_cpp, vllm
from pomona.adapters.export.base import Base
from pomona.adapters.factors import Adapter

# A module of one expert. Mixtral's names are the only ones that PEFT 0.21 translates to transformers 5, where experts are fused.
_EXPERT = re.compile(r".*\.experts\.\d+\.(?!w[123]$)[^.]+")


def _peft(adapter: Adapter, base: Base | None) -> list[str]:
    """PEFT loads whatever Pomona can read, but for experts that the model's code has fused."""
    expert = next((module for module in adapter if _EXPERT.fullmatch(module)), None)
    if expert is None:
        return []
    return [
        f"adapts single experts ({expert}), which transformers 5 fuses, and PEFT translates Mixtral's only. "
        "Load it with transformers 4, or add it to the model with --for merged."
    ]


_PROBLEMS: Mapping[str, Callable[[Adapter, Base | None], list[str]]] = {
    "peft": _peft,
    "vllm": vllm.problems,
    "llama.cpp": llama_cpp.problems,
}
TARGETS = tuple(_PROBLEMS)
"""The programs that load an adapter: `peft`, `vllm`, `llama.cpp`."""


def problems_for(target: str, adapter: Adapter, base: Base | None = None) -> list[str]:
    """Why an adapter, exported for a program, would not load there; empty where it will, as far as can be known.

    Args:
        target: one of `TARGETS`.
        adapter: what would be exported. Reads the factors of an adapter in a folder, one module at a time.
        base: the base model, if known (`read_base`): some rules depend on it.

    Returns:
        A sentence for each reason, with what to do about it.

    Raises:
        KeyError: no such target.
    """
    return _PROBLEMS[target](adapter, base)
