"""How a plan is printed: by `check`, and by `--dry-run` wherever there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pomona.cli.say import say

if TYPE_CHECKING:
    from pomona.runs.base_plan import Plan


def print_plan(make: Callable[[], Plan], subject: str, *, as_json: bool) -> None:
    """Make the plan and print it: a line a finding and what the work takes, or one JSON object in the shape of `pomona check`'s.

    Args:
        make: prepares the work.
        subject: names the recipe in the findings.
        as_json: print JSON.

    Raises:
        InputError: what `make` raises; as JSON it is printed, too.
    """
    import dataclasses
    import json

    from pomona.errors import InputError

    try:
        plan = make()
    except InputError as error:
        if as_json:
            finding = {"level": "error", "subject": "", "message": str(error)}
            say(json.dumps({"ok": False, "findings": [finding]}))
        raise
    findings = plan.findings(subject)
    if as_json:
        told = {"ok": True, "findings": [dataclasses.asdict(one) for one in findings], "plan": plan.summary()}
        say(json.dumps(told))
        return
    for finding in findings:
        say(f"{finding.level}: {finding.message}")
    for line in plan.lines():
        say(line)
