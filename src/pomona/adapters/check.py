"""Everything that can be said about adapters in folders before they are merged, as findings and not as the first error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pomona.adapters.compatible import check_compatible
from pomona.adapters.factors import Adapter
from pomona.adapters.folder import check_finite, read_adapter
from pomona.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Args:
        level: `error` (it will not work), `warning` (it will, perhaps not as meant) or `ok`.
        subject: the file or folder that it is about.
        message: what and why, in one line.
    """

    level: Literal["error", "warning", "ok"]
    subject: str
    message: str


def check_adapters(paths: Sequence[Path | str]) -> list[Finding]:
    """Read each adapter, all of its values too, and see whether those that can be read can be merged with each other.

    Args:
        paths: adapter folders, one or more.

    Returns:
        For each folder an `ok` or an `error`, in order; then what stands between them.
    """
    findings: list[Finding] = []
    readable: list[Adapter] = []
    for path in paths:
        try:
            adapter = read_adapter(path)
            check_finite(adapter)
        except InputError as error:
            findings.append(Finding("error", str(path), str(error)))
        else:
            readable.append(adapter)
            base = f", trained on {adapter.base_model}" if adapter.base_model else ""
            findings.append(Finding("ok", str(path), f"{len(adapter)} modules, all values finite{base}"))
    together = ", ".join(str(path) for path in paths)
    if len(readable) > 1:
        try:
            warnings = check_compatible(readable)
        except InputError as error:
            findings.append(Finding("error", together, str(error)))
        else:
            findings.extend(Finding("warning", together, warning) for warning in warnings)
    return findings
