"""Whether another program would load an adapter, and the reasons if not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pomona.adapters.experts import expert_of
from pomona.adapters.export import llama_cpp, vllm
from pomona.adapters.export.base import Base
from pomona.adapters.export.mixture import single_experts_doubt, single_experts_problem
from pomona.adapters.factors import Adapter


def _peft(adapter: Adapter, base: Base | None) -> list[str]:
    """PEFT loads every adapter that Pomona can read, except single experts of some models that store all experts in one tensor."""
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
    """The reasons why a program would not load an exported adapter; empty if it would, as far as is known.

    Args:
        target: one of `TARGETS`.
        adapter: the adapter. The factors of an adapter in a folder are read one module at a time.
        base: the base model, if it is known (`read_base`): some rules depend on it.

    Returns:
        One sentence for each reason, with the fix.

    Raises:
        KeyError: no such target.
    """
    return _PROBLEMS[target](adapter, base)


def doubts_for(target: str, adapter: Adapter, base: Base | None = None) -> list[str]:
    """What is unknown about whether a program would load an adapter, one sentence each without its full stop."""
    if target == "vllm":
        return list(vllm.STACKED_DOUBT) if any(expert_of(path) for path in adapter) else []
    doubt = single_experts_doubt(adapter, None if base is None else base.path) if target == "peft" else None
    return [] if doubt is None else [doubt]
