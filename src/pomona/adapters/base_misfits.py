"""Whether an adapter fits a base model's folder: `misfit` for every module, grouped by kind. Reads no tensors."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pomona.adapters.base_modules import Misfit, misfit
from pomona.adapters.experts import Expert, expert_of
from pomona.adapters.export.base_folder import BaseFolder
from pomona.adapters.export.expert_weights import homes_of
from pomona.adapters.factors import Adapter
from pomona.adapters.shapes import shape_of


class Misfits(NamedTuple):
    """The reason why modules do not fit, or why it is unknown, in one line, and the number of these modules."""

    level: Literal["error", "warning"]
    message: str
    modules: int


def misfits(adapter: Adapter, base: BaseFolder) -> list[Misfits]:
    """Compare every module of an adapter with the base's.

    Returns:
        Errors (first a module that the base does not have, another kind or shape, another vocabulary) and warnings (quantised
        weights), one of each kind, with its first module; none if all modules fit.
    """
    found: dict[str, list[tuple[str, Misfit]]] = {}
    for module in adapter:
        expert = None if base.modules.exact else expert_of(module)
        one = misfit(adapter, module, base.modules) if expert is None else _expert_misfit(expert, shape_of(adapter, module), base)
        if one is not None:
            found.setdefault(one.kind, []).append((module, one))
    return [_together(found[kind]) for kind in sorted(found, key=lambda kind: kind != "vocabulary")]


def _together(found: list[tuple[str, Misfit]]) -> Misfits:
    (module, first), rest = found[0], len(found) - 1
    more = f"; so {rest} more module{'s' if rest > 1 else ''}" if rest else ""
    fix = f". {first.fix}" if first.fix else ""
    return Misfits(first.level, f"{module}: {first.problem}{fix}{more}", len(found))


def _expert_misfit(expert: Expert, shape: tuple[int, int], base: BaseFolder) -> Misfit | None:
    """Compare one expert's pair with the files' tensors, if the class of the base is unknown."""
    if homes_of(expert, shape, base.checkpoint, base.config.get("model_type")):
        return None
    if expert.parameter not in base.checkpoint.tensors:
        problem = "the base's files have it under another name, if at all, so shapes cannot be compared"
        return Misfit("warning", "expert's name", problem)
    has = " x ".join(map(str, base.checkpoint.tensors[expert.parameter].shape))
    wanted = f"{expert.total} x " if expert.total > 1 else ""
    problem = f"adapts {wanted}{shape[0]} x {shape[1]} (experts x out x in), but the base's tensor is {has}"
    return Misfit("error", "expert's shape", problem)
