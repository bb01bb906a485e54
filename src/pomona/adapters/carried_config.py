"""Config fields that a merged adapter inherits: the task for which PEFT loads it, and the revision of the base."""

from __future__ import annotations

from collections.abc import Sequence

from pomona.adapters.factors import Adapter
from pomona.adapters.same_base import BASE, shared_identity

_MAIN = "main"


def carried(adapters: Sequence[Adapter]) -> dict[str, object]:
    """The provenance of a merged adapter, with which PEFT loads it like its sources.

    The task is the first one that is given, and the revision is that of the adapter that names the base model; an adapter made in
    memory, without a task in its provenance, does not count.

    Returns:
        `fan_in_fan_out`; `task_type`, `revision`, `auto_mapping` and `modules_to_save` if an adapter has them,
        `older_names`, and the identity of the base if it is the same for all.
    """
    found: dict[str, object] = {"fan_in_fan_out": any(bool(one.provenance.get("fan_in_fan_out")) for one in adapters)}
    tasks = [one.provenance["task_type"] for one in adapters if "task_type" in one.provenance]
    if tasks:
        found["task_type"] = next((task for task in tasks if task is not None), None)
    base = next((one for one in adapters if one.base_model), None)
    if base is not None and base.provenance.get("revision"):
        found["revision"] = base.provenance["revision"]
    saved = dict.fromkeys(name for one in adapters for name in _names(one.provenance.get("modules_to_save")))
    if saved:
        found["modules_to_save"] = [*saved]
    mapping = next((one.provenance["auto_mapping"] for one in adapters if one.provenance.get("auto_mapping")), None)
    if mapping is not None and found.get("task_type") is None:
        found["auto_mapping"] = mapping
    if older := _older_names(adapters):
        found["older_names"] = older
    identity = shared_identity(adapters)
    return found if identity is None else found | {BASE: identity}


def _older_names(adapters: Sequence[Adapter]) -> list[str]:
    """The modules that had the older name in every adapter that has them."""
    older: list[frozenset[str]] = []
    for adapter in adapters:
        names = adapter.provenance.get("older_names")
        older.append(frozenset(names if isinstance(names, list | tuple) else ()))
    read = frozenset[str]().union(*older)
    newer = frozenset(module for adapter, names in zip(adapters, older, strict=True) for module in adapter if module not in names)
    return sorted(read - newer)


def task_warnings(named: Sequence[tuple[str, Adapter]]) -> list[str]:
    """Warnings about contradictions in the fields of `carried`: a sentence for each adapter whose value is ignored.

    Args:
        named: the adapters, each with its name in messages.
    """
    tasks = [(name, one.provenance["task_type"]) for name, one in named if one.provenance.get("task_type")]
    found = [
        f"{name} is for the task {task}, but {tasks[0][0]} for {tasks[0][1]}, which a merge takes over"
        for name, task in tasks[1:]
        if task != tasks[0][1]
    ]
    bases = [(name, one.base_model, str(one.provenance.get("revision") or _MAIN)) for name, one in named if one.base_model]
    return found + [
        f"{name} was trained on revision {revision!r} of {base}, but {bases[0][0]} on {bases[0][2]!r}, which a merge takes over"
        for name, base, revision in bases[1:]
        if base == bases[0][1] and revision != bases[0][2]
    ]


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []
