"""What `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pomona.adapters import Finding


def print_findings(look: Callable[[], Sequence[Finding]], *, as_json: bool) -> None:
    """Look, and print a line a finding or one JSON object in the shape of `pomona check --json`.

    Raises:
        InputError: what `look` raises; as JSON it is printed, too.
    """
    import dataclasses
    import json

    from pomona.errors import InputError

    try:
        findings = look()
    except InputError as error:
        if as_json:
            finding = {"level": "error", "subject": "", "message": str(error)}
            typer.echo(json.dumps({"ok": False, "findings": [finding]}))
        raise
    if as_json:
        typer.echo(json.dumps({"ok": True, "findings": [dataclasses.asdict(finding) for finding in findings]}))
        return
    for finding in findings:
        typer.echo(f"{finding.level}: {finding.message}")
