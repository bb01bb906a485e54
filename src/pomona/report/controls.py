"""What the controls of a run say: each is a system that lacks what a claim rests on, so the claim must beat it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pomona.comparison import Comparison
from pomona.report.wording import comparison_of, may_be_chance, system_label, verdict
from pomona.runs.record import RunRecord


class _Control(NamedTuple):
    """What follows where Pomona beats the control, and where it does not."""

    beaten: str
    not_beaten: str


CONTROLS: Mapping[str, _Control] = {
    "random_sources": _Control(
        "so the content of the sources helps, not only the form of the merge",
        "so the content of the sources is not shown to help: noise of their size does as well",
    ),
    "target_recalibrated": _Control(
        "so the sources add something to what recalibrating the target LoRA alone gives",
        "so the sources are not shown to add anything to a recalibrated target LoRA",
    ),
}
"""System -> what a comparison with it says."""


def control_clauses(record: RunRecord, system: str) -> list[str]:
    """A clause for each control of the run, on the primary metric; empty where the run has none.

    Args:
        record: of the run.
        system: whose claims are tested.
    """
    found = ((name, comparison_of(record, system, name, record.primary_metric)) for name in CONTROLS)
    return [_clause(record, name, comparison) for name, comparison in found if comparison is not None]


def _clause(record: RunRecord, name: str, comparison: Comparison) -> str:
    label, beaten = system_label(record, name), verdict(comparison) == "better" and not may_be_chance(comparison)
    if beaten:
        return f"it beats the control {label}, {CONTROLS[name].beaten}"
    return f"it does not beat the control {label}, {CONTROLS[name].not_beaten}"
