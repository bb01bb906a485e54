"""Tables of what went into a run and what it took: sources, splits, time, tokens, environment."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pomona.report.tables import Cell, Column, Table
from pomona.report.wording import MISSING, duration, percent
from pomona.runs.record import RunRecord


def sources_table(record: RunRecord) -> Table:
    """The adapters that were merged."""
    rows = [
        (
            Cell(found.name, found.origin),
            Cell(f"{found.weight:g}" if isinstance(found.weight, float) else json.dumps(found.weight)),
            Cell(str(found.rank)),
            Cell(str(found.modules)),
            Cell(found.fingerprint[:12]),
        )
        for found in record.sources
    ]
    columns = (
        Column("Source adapter", numeric=False),
        Column("Weight"),
        Column("Rank"),
        Column("Modules"),
        Column("Fingerprint", numeric=False),
    )
    return Table(columns, tuple(rows))


def splits_table(record: RunRecord) -> Table:
    """The splits of the target data."""
    rows = [
        (Cell(name.replace("_", " ")), Cell(f"{split.examples:,}"), Cell(split.fingerprint[:12]))
        for name, split in record.splits.items()
    ]
    return Table((Column("Split", numeric=False), Column("Examples"), Column("Fingerprint", numeric=False)), tuple(rows))


def timing_table(record: RunRecord) -> Table:
    """Where the time went. The parts need not add up to the total: work between them is in the total alone."""
    parts = record.timing.model_dump()
    total = parts["total_seconds"]
    rows = [
        (
            Cell(name.removesuffix("_seconds").capitalize()),
            Cell(duration(seconds)),
            Cell(percent(seconds / total)) if total > 0 else Cell(MISSING),
        )
        for name, seconds in parts.items()
    ]
    rows += [
        (Cell(f"Tokens, {name.replace('_', ' ')}"), Cell(f"{count:,}"), Cell(MISSING)) for name, count in record.tokens.items()
    ]
    return Table((Column("Part", numeric=False), Column("Time"), Column("Share")), tuple(rows))


def facts_table(facts: Mapping[str, object], heading: str) -> Table:
    """Names and values; nested names are joined by dots."""
    rows = [(Cell(name), Cell(value)) for name, value in _flat(facts)]
    return Table((Column(heading, numeric=False), Column("Value", numeric=False)), tuple(rows))


def _flat(facts: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", MISSING if value is None else str(value)))
    return found
