"""Will another program load this adapter, and if not, why?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pomona.adapters.experts import expert_of
from pomona.adapters.export import llama_cpp, vllm
from pomona.adapters.export.base import Base
from pomona.adapters.export.mixture import single_experts_doubt, single_experts_problem
from pomona.adapters.factors import Adapter


def _peft(adapter: Adapter, base: Base | None) -> list[str]:
    """PEFT loads whatever Pomona can read, but for single experts of some models whose code keeps all experts in one tensor."""
    problem = single_experts_problem(adapter, None if base is None else base.path)
    return [] if problem is None else [problem]


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


def doubts_for(target: str, adapter: Adapter, base: Base | None = None) -> list[str]:
    """What cannot be known of whether a program would load an adapter, a sentence each without its full stop."""
    if target == "vllm":
        return list(vllm.STACKED_DOUBT) if any(expert_of(path) for path in adapter) else []
    doubt = single_experts_doubt(adapter, None if base is None else base.path) if target == "peft" else None
    return [] if doubt is None else [doubt]
