"""The record of an experiment: what `experiment.json` holds. Unknown is not zero: what could not be had is null."""

from __future__ import annotations

import html
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pomona.runs.record import PointRecord, SystemDescription
from pomona.runs.record_view import LINES

FORMAT_VERSION = 1

Population = Literal["new_seeds", "these_runs"]
"""What an interval or a p-value holds for: new test examples and new seeds, or new test examples under the seeds that were run."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Contrast(_Part):
    """A system minus the one that all are compared with, on the same examples under the seeds that both have.

    `p_holm` is corrected for all systems of the setting on this metric. `holds_for`: what interval and p-values answer for.
    `new_seeds`: new test examples and new seeds; `these_runs`: new test examples under the seed that was run, where it is only one.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    holds_for: Population = "these_runs"
    seeds: int
    examples: int


class SystemScore(_Part):
    """A metric over seeds: mean, sample deviation (null of fewer than two), and the 95 % interval.

    `missing`: seeds that have no score, which are left out. `values`: of each seed, in order, null where it is missing.
    `holds_for`: what the interval answers for, as in a contrast; null where there is no score.
    """

    mean: float | None
    deviation: float | None
    seeds: int
    missing: int
    low: float | None = None
    high: float | None = None
    holds_for: Population | None = None
    examples: int = 0
    values: list[float | None]
    contrast: Contrast | None = None


class SystemCost(_Part):
    """Means over the cells that are done: prune ratio, measured sparsity, and seconds of training and probes."""

    prune_ratio: float | None
    sparsity: float | None
    train_seconds: float | None


class SettingRecord(_Part):
    """One setting: `metrics` has metric -> system -> score; what makes each metric's score stands in `signatures`.

    `draws`: of each bootstrap and test. `systems`: what the systems are made of, by the first of their cells that is done.
    """

    draws: int
    metrics: dict[str, dict[str, SystemScore]]
    costs: dict[str, SystemCost]
    signatures: dict[str, str]
    systems: dict[str, SystemDescription] = Field(default_factory=dict)


class CellRecord(_Part):
    """One cell; `status` is its run's, or `missing` where there is none.

    Seconds are wall clock. Those of training include probes, and training that the cell took over from another one.
    `tuned`: the points of the grid at which the cell's system was trained, if there is a grid.
    `made`: what the cell's system is made of. `learned_nothing`: no controller round took place, so its prune ratio is the one that
    the run began with.
    """

    setting: str
    system: str
    seed: int
    path: str
    status: str
    error: str | None = None
    prune_ratio: float | None = None
    learned_nothing: bool = False
    sparsity: float | None = None
    train_seconds: float | None = None
    total_seconds: float | None = None
    tuned: list[PointRecord] = Field(default_factory=list)
    made: SystemDescription | None = None


class AverageContrast(_Part):
    """A system minus the one that all are compared with, averaged over settings.

    Interval and p-values hold for other settings like these; null of fewer than two settings. `p_holm` is corrected for all
    systems of the average. `better`, `worse`: in how many settings the difference is significant, after Holm's correction over all
    settings and systems. `better_worst_seed`: in how many settings the system's worst seed is better than the other's worst seed.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None = None
    settings: int
    better: int
    worse: int
    better_worst_seed: int


class AverageScore(_Part):
    """A system's mean over the settings that have a score; null where none has."""

    mean: float | None
    settings: int
    contrast: AverageContrast | None = None


class AverageRecord(_Part):
    """Averages over settings: metric -> system -> score, for `primary`, the primary metric of each setting, and for the loss."""

    settings: list[str]
    primary: dict[str, str]
    metrics: dict[str, dict[str, AverageScore]]


class ExperimentRecord(_Part):
    """Everything that an experiment found; `total_seconds` is the sum over its cells."""

    format_version: int = FORMAT_VERSION
    name: str
    seeds: list[int]
    against: str | None
    settings: dict[str, SettingRecord]
    averages: dict[str, AverageRecord] = Field(default_factory=dict)
    cells: list[CellRecord]
    total_seconds: float

    def __repr__(self) -> str:
        done = sum(one.status == "done" for one in self.cells)
        lines = [f"ExperimentRecord {self.name!r}: {done} of {len(self.cells)} cells done, seeds {', '.join(map(str, self.seeds))}"]
        for setting, scores in self._primary.items():
            lines += [f"  {setting}: {system}  {shown}" for system, shown in scores.items()]
        return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], f"  and {len(lines) - LINES + 1} more rows"])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in (setting, system, shown))}</tr>"
            for setting, scores in self._primary.items()
            for system, shown in scores.items()
        ]
        head = "<tr><th>setting</th><th>system</th><th>mean over seeds</th></tr>"
        caption = f"<caption>{html.escape(self.name)}</caption>"
        return f"<table>{caption}<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"

    @property
    def _primary(self) -> dict[str, dict[str, str]]:
        """Setting -> system -> its score by the first metric, as text."""
        found: dict[str, dict[str, str]] = {}
        for setting, record in self.settings.items():
            metric, scores = next(iter(record.metrics.items()), ("", {}))
            found[setting] = {system: f"{metric} {_shown(one)}" for system, one in scores.items()}
        return found


def _shown(score: SystemScore) -> str:
    if score.mean is None:
        return "missing"
    known = score.low is not None and score.high is not None
    return f"{score.mean:.3f}" + (f" [{score.low:.3f}, {score.high:.3f}]" if known else "")
