"""The result of an export, or the reason for a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pomona.adapters.factors import Adapter
from pomona.errors import InputError


@dataclass(frozen=True)
class Export:
    """A finished export.

    Args:
        output: the folder or file.
        modules: number of modules of the update.
        rank: the largest written rank.
        use: how the other program loads it, in one sentence.
        details: figures of this kind of export, as JSON values.
        warnings: one sentence each, without its full stop.
    """

    output: Path
    modules: int
    rank: int
    use: str
    details: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def refuse(adapter: Adapter, target: str, problems: Sequence[str]) -> None:
    """Raise the first problem with the export of an adapter, if there is one, also if the adapter has no modules.

    Raises:
        InputError: names the adapter's folder and the target.
    """
    path = adapter.provenance.get("path")
    file = None if path is None else str(path)
    if len(adapter) == 0:
        raise InputError("the adapter has no modules", file=file, fix="Give at least one adapted module")
    if problems:
        raise InputError(problems[0], file=file, field=f"--for {target}")
