"""Which task rows are for, and which column is which of its fields, by their names and by what they hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pomona.data.columns import mapped
from pomona.data.formats.rows import Row
from pomona.data.from_rows import examples
from pomona.data.tasks import tasks
from pomona.errors import InputError

LOOKED_AT = 20
"""Rows that a guess is made from."""

_OTHER_NAMES: Mapping[str, Sequence[str]] = {
    "messages": ("messages", "conversation", "conversations", "turns"),
    "context": ("context", "passage", "paragraph"),
    "question": ("question", "query"),
    "answers": ("answers", "answer"),
    "instruction": ("instruction", "task"),
    "output": ("output", "response", "answer", "reference", "human_reference", "ref"),
    "input": ("input", "meaning_representation", "mr", "data", "record", "table"),
    "title": ("title", "headline", "subject"),
    "document": (
        "document",
        "article",
        "text",
        "content",
        "body",
        "abstract",
        "story",
        "dialogue",
        "source",
        "description",
        "input",
    ),
    "summary": ("summary", "highlights", "tldr", "abstract", "short", "target", "output"),
    "source": ("source", "src", "original", "complex", "normal", "text", "input", "sentence"),
    "target": ("target", "tgt", "simple", "simplified", "translation", "paraphrase", "output"),
    "prompt": ("prompt",),
    "completion": ("completion", "response"),
}
_ORDER = (
    "chat",
    "extractive_qa",
    "instruction",
    "title_generation",
    "summarization",
    "translation",
    "simplification",
    "completion",
    "data_to_text",
)
"""Tasks with rarer fields come first."""

_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")
_TITLE_WORDS = 14
"""Texts that are shorter on average are titles, longer ones summaries."""


@dataclass(frozen=True)
class Guess:
    """What rows are for.

    Args:
        task: a task's name.
        columns: field -> column, where their names differ.
        reason: one sentence for the user.
    """

    task: str
    columns: Mapping[str, str]
    reason: str


def guess(rows: Sequence[Row], source: Path | str, task: str | None = None, columns: Mapping[str, str] | None = None) -> Guess:
    """The first task that can read the rows, with the columns whose names come nearest.

    Args:
        rows: of `read_rows`, one or more.
        source: their origin, for errors.
        task: what the user says; None: any.
        columns: field -> column that the user says.

    Raises:
        InputError: no task can read them, or the given one cannot.
    """
    given, first = dict(columns or {}), rows[:LOOKED_AT]
    wanted = (task,) if task is not None else _ORDER
    problem: InputError | None = None
    by_name = ((name, found) for name in wanted for found in _by_name(name, first, given))
    by_length = ((name, found) for name in wanted if not given for found in _by_length(name, first))
    for name, found in itertools.chain(by_name, by_length):
        try:
            examples(mapped(first, found, source), tasks.create(name), source)
        except InputError as error:
            problem = problem or error
            continue
        return Guess(name, found, _reason(name, found))
    if task is not None and problem is not None:
        raise problem
    names = ", ".join(map(str, first[0].fields))
    fix = "Say which with --task and --column, for example --task summarization --column document=TEXT --column summary=SHORT"
    raise InputError(f"no task fits the columns {names}", file=source, fix=fix)


def _fields(name: str) -> list[str]:
    cls: Any = tasks[name]
    return [field for field in cls.sample_row if field not in cls.optional_fields]


def _by_name(name: str, rows: Sequence[Row], given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Columns that are called like the task's fields, or by a language each."""
    known = [str(column) for column in rows[0].fields]
    taken, found, complete = set(given.values()), dict(given), True
    for field in _fields(name):
        if field in given:
            continue
        column = _named(field, [one for one in known if one not in taken])
        complete = complete and column is not None
        if column is not None:
            taken.add(column)
            found |= {field: column} if column != field else {}
    if complete or given:  # what the user has named may be enough; the task says what is missing
        yield found
    if name == "translation" and not given:
        tongues = [column for column in known if _LANGUAGE.fullmatch(column) and column != "id"]
        if len(tongues) == 2:
            yield {"source": tongues[0], "target": tongues[1]}


def _named(field: str, columns: Sequence[str]) -> str | None:
    """The column that is called like the field."""
    plain = {column.casefold().replace(" ", "_").replace("-", "_"): column for column in columns}
    return next((plain[name] for name in (field, *_OTHER_NAMES.get(field, ())) if name in plain), None)


def _by_length(name: str, rows: Sequence[Row]) -> Iterator[dict[str, str]]:
    """Of just two columns of text the longer is the document, and the shorter its title or summary."""
    if name not in ("title_generation", "summarization"):
        return
    lengths = {
        str(column): sum(len(str(row.fields.get(column, "")).split()) for row in rows) / len(rows)
        for column, value in rows[0].fields.items()
        if isinstance(value, str) and str(column) not in ("id", "group")
    }
    if len(lengths) == 2:
        short, long = sorted(lengths, key=lambda column: lengths[column])
        if (lengths[short] < _TITLE_WORDS) == (name == "title_generation"):
            yield {"document": long, "title" if name == "title_generation" else "summary": short}


def _reason(name: str, columns: Mapping[str, str]) -> str:
    named = ", ".join(f"{field} from the column {column}" for field, column in columns.items())
    return f"the task is {name}" + (f"; {named}" if named else ", whose fields the columns are called by")
