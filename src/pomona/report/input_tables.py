"""Tables of what went into a run and what it took: sources, splits, time, tokens, environment, the metrics' signatures."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pomona.report.tables import Cell, Column, Row, Table
from pomona.report.wording import MISSING, duration, metric_label, percent
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
    """The splits of the target data, and what was cut of their documents and prompts where anything was."""
    documents = any(found.documents for found in record.cut.values())
    prompts = any(found.prompts for found in record.cut.values())
    columns = [Column("Split", numeric=False), Column("Examples")]
    columns += [Column("Documents cut")] * documents + [Column("Prompts cut")] * prompts
    rows: list[Row] = []
    for name, split in record.splits.items():
        found = record.cut.get(name)
        cells = [Cell(name.replace("_", " ")), Cell(f"{split.examples:,}")]
        if documents:
            cells.append(_cut_cell(found.documents, found.characters, "character") if found else Cell(MISSING))
        if prompts:
            cells.append(_cut_cell(found.prompts, found.tokens, "token") if found else Cell(MISSING))
        rows.append((*cells, Cell(split.fingerprint[:12])))
    notes = ["Documents are cut by the task's max_document_characters."] * documents
    notes += ["Prompts are cut where prompt and target together are longer than tuning.max_tokens."] * prompts
    return Table((*columns, Column("Fingerprint", numeric=False)), tuple(rows), note=" ".join(notes))


def _cut_cell(count: int, lost: int, what: str) -> Cell:
    return Cell(f"{count:,}", f"{lost:,} {what if lost == 1 else what + 's'}" if lost else "")


def signatures_table(record: RunRecord) -> Table:
    """What computed each metric: library, version, settings."""
    rows = [(Cell(metric_label(metric)), Cell(signature)) for metric, signature in record.signatures.items()]
    return Table((Column("Metric", numeric=False), Column("Signature", numeric=False)), tuple(rows))


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
