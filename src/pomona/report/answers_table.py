"""The form of the systems' answers, apart from their correctness: a table, and a sentence for each alarming figure.

A score does not show its reason. If answers are empty, never end, repeat themselves, or are far too long or short, the cause is
usually in the task or its limits, not in the adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pomona.report.cells import Cell, Column, Row, Table
from pomona.report.sentences import POMONA
from pomona.report.wording import MISSING, listed, percent, system_label
from pomona.runs.record import RunRecord, SystemDescription


@dataclass(frozen=True)
class _Figure:
    """A column of the table.

    Args:
        heading: the column's heading.
        value: the figure of a system, or None if it is unknown.
        shown: the figure as text.
        alarming: whether the figure needs attention.
        sentence: `{systems}` stands for the list of systems with an alarming figure.
        of_answers: completes "Pomona's answers: 12.0% ..."
        only_if_any: the column is shown only if some system has more than 0.
    """

    heading: str
    value: Callable[[SystemDescription], float | None]
    shown: Callable[[float], str]
    alarming: Callable[[float], bool]
    sentence: str = ""
    of_answers: str = ""
    only_if_any: bool = False


def _one_decimal_percent(share: float) -> str:
    return percent(share, 1)


_FIGURES = (
    _Figure(
        "Empty",
        lambda system: system.answers and system.answers.empty_share,
        _one_decimal_percent,
        lambda share: share > 0.05,
        "More than 5% of the answers are empty: {systems}. An empty answer scores 0, whatever its cause.",
        "empty",
    ),
    _Figure(
        "Without an end",
        lambda system: system.answers and system.answers.unended_share,
        _one_decimal_percent,
        lambda share: share > 0.3,
        "More than 30% of the answers reached the task's max_new_tokens without an end: {systems}. "
        "Their scores depend on this limit as much as on the system.",
        "without an end",
    ),
    _Figure(
        "Repetition",
        lambda system: system.answers and system.answers.repetition,
        _one_decimal_percent,
        lambda share: share > 0.3,
        "More than 30% of the four-word sequences in the answers are repetitions: {systems}.",
        "repetition",
    ),
    _Figure(
        "Words",
        lambda system: system.answers and system.answers.mean_words,
        lambda count: f"{count:,.1f}",
        lambda count: False,
    ),
    _Figure(
        "Length",
        lambda system: system.answers and system.answers.length_ratio,
        lambda ratio: f"{ratio:.2f}×",
        lambda ratio: not 0.5 <= ratio <= 2.0,
        "The answers have less than half or more than twice as many words as the references: {systems}.",
        "the references' length",
    ),
    _Figure(
        "Unscored",
        lambda system: system.unscored,
        lambda count: f"{count:,.0f}",
        lambda count: count > 0,
        "Examples without a scorable answer are left out of the scores, not counted as wrong: {systems}.",
        "unscored",
        only_if_any=True,
    ),
    _Figure(
        "Prompts cut",
        lambda system: system.answers and system.answers.cut_prompts,
        lambda count: f"{count:,.0f}",
        lambda count: False,
        only_if_any=True,
    ),
)


def answers_table(record: RunRecord) -> Table:
    """One row for each system: empty, without an end, repetition, words and length; unscored and cut prompts if there are any."""
    figures = [figure for figure in _FIGURES if _has_column(record, figure)]
    rows: list[Row] = [
        (Cell(system.label), *(_cell(figure, system) for figure in figures)) for system in record.systems.values() if figures
    ]
    names = list(record.systems)
    note = (
        "Repetition: share of four-word sequences that occurred earlier in the answer. Length: words / closest reference's words."
    )
    if any(figure.heading == "Prompts cut" for figure in figures):
        note += " Prompts cut: prompts too long to leave room for max_new_tokens."
    return Table(
        columns=(Column("System", numeric=False), *(Column(figure.heading) for figure in figures)),
        rows=tuple(rows),
        strong=names.index(POMONA) if POMONA in names else None,
        note=note,
    )


def alarms(record: RunRecord) -> tuple[str, ...]:
    """A sentence for each alarming column, with the systems and their figures."""
    found: list[str] = []
    for figure in _FIGURES:
        systems = [
            f"{system_label(record, name)} ({figure.shown(value)})"
            for name, system in record.systems.items()
            if (value := figure.value(system)) is not None and figure.alarming(value)
        ]
        if systems:
            found.append(figure.sentence.format(systems=listed(systems)))
    return tuple(found)


def own_alarm(record: RunRecord) -> str | None:
    """The alarming figures of the answers of the run's own result, in one line; None if there are none."""
    if POMONA not in record.systems:
        return None
    system = record.systems[POMONA]
    parts = [
        f"{figure.shown(value)} {figure.of_answers}"
        for figure in _FIGURES
        if (value := figure.value(system)) is not None and figure.alarming(value)
    ]
    return f"Read {system.label}'s answers before you trust its scores: {listed(parts)}." if parts else None


def _has_column(record: RunRecord, figure: _Figure) -> bool:
    values = [value for system in record.systems.values() if (value := figure.value(system)) is not None]
    return any(values) if figure.only_if_any else bool(values)


def _cell(figure: _Figure, system: SystemDescription) -> Cell:
    value = figure.value(system)
    return Cell(MISSING) if value is None else Cell(figure.shown(value), alarm=figure.alarming(value))
