"""How records look in Python: ten lines, a table in a notebook, frames for pandas."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pomona.errors import MissingPackageError

if TYPE_CHECKING:
    from pandas import DataFrame

    from pomona.runs.record import Estimate, RunRecord

LINES = 10
HISTORY = "history.jsonl"

Metrics = Mapping[str, Mapping[str, "Estimate"]]


class RunFrames(NamedTuple):
    """A run as pandas frames.

    Args:
        systems: a row for each system: what it is, and each metric as `name`, `name_low`, `name_high`.
        rounds: a row for each round of the controller.
        history: a row for each line of `history.jsonl`; empty if the record was not read from a run folder.
    """

    systems: DataFrame
    rounds: DataFrame
    history: DataFrame


def ten_lines(title: str, facts: Mapping[str, object], metrics: Metrics, primary: str, labels: Mapping[str, str]) -> str:
    """A title, a line for each fact that is known, and as many systems as there is room for, the last ones first dropped."""
    known = [(name, str(value)) for name, value in facts.items() if value not in (None, "", [])]
    width = max((len(name) for name, _ in known), default=0)
    lines = [title, *(f"  {name:<{width}}  {' '.join(value.split())[:110]}" for name, value in known)]
    rows = [
        (labels.get(system, system), scores[primary]) for system, scores in reversed(list(metrics.items())) if primary in scores
    ]
    room = LINES - len(lines)
    shown = rows if len(rows) <= room else rows[: room - 1]
    wide = max((len(label) for label, _ in shown), default=0)
    lines += [f"  {label:<{wide}}  {primary} {_interval(found)}" for label, found in shown]
    if len(shown) < len(rows):
        lines.append(f"  and {len(rows) - len(shown)} more systems")
    return "\n".join(lines)


def table(title: str, metrics: Metrics, labels: Mapping[str, str]) -> str:
    """The systems and their scores as an HTML table; the last system, which the run made, comes first."""
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("system", *names))
    rows = []
    for system, scores in reversed(list(metrics.items())):
        cells = [html.escape(labels.get(system, system)), *(_interval(scores[name]) if name in scores else "" for name in names)]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def frames(record: RunRecord, folder: Path | None) -> RunFrames:
    """See `RunRecord.to_pandas`.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        fix = "Install it: pip install 'pomona[notebook]'"
        raise MissingPackageError("frames need the package pandas", fix=fix) from error
    systems: list[dict[str, object]] = []
    for name, described in record.systems.items():
        facts = described.model_dump(include={"label", "rank", "prune_ratio", "sparsity", "train_seconds", "trained_parameters"})
        systems.append({"system": name, **facts, **_flat(record.metrics.get(name, {}))})
    rounds: Sequence[Mapping[str, object]] = [one.to_line() for one in record.rounds]
    history: list[Mapping[str, object]] = []
    if folder is not None and (folder / HISTORY).is_file():
        text = (folder / HISTORY).read_text(encoding="utf-8")
        history = [json.loads(line) for line in text.splitlines() if line.endswith("}")]  # a run under way may be writing one
    indexed = pandas.DataFrame(systems).set_index("system") if systems else pandas.DataFrame()
    return RunFrames(indexed, pandas.DataFrame(list(rounds)), pandas.DataFrame(history))


def _flat(scores: Mapping[str, Estimate]) -> dict[str, float]:
    return {
        f"{name}{end}": value
        for name, found in scores.items()
        for end, value in (("", found.value), ("_low", found.low), ("_high", found.high))
    }


def _interval(found: Estimate) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
