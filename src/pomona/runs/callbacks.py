"""What else hears of a run while it goes on: one protocol, for the trackers of a recipe and for anything of a user's own.

Events are mappings with a `kind`:
    begin    {kind, name, folder, recipe}     the run starts; on a resume too, and then all events of its history come again
    step, epoch, round, settled               the lines of `history.jsonl` (`pomona.runs.record`), as they are written
    scores   {kind, system, label, ...}       a system's metrics, each as `name`, `name_low`, `name_high`
    report   {kind, path}                     the report is written
    end      {kind, status}                   `done`, or how else the run ended; nothing comes after it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pomona.runs.record import RunRecord


class Callback(Protocol):
    """Hears of each event."""

    def on_event(self, event: Mapping[str, object]) -> None:
        """An event; see `pomona.runs.callbacks`. An error ends the callback with one warning, never the run."""


class Callbacks:
    """Several callbacks as one; one that fails is warned about once, and hears nothing more.

    Args:
        callbacks: in the order in which they hear.
        warn: is told of a failure.
    """

    def __init__(self, callbacks: Sequence[Callback], warn: Callable[[str], None]) -> None:
        self._callbacks, self._warn = list(callbacks), warn

    def on_event(self, event: Mapping[str, object]) -> None:
        """Tell each."""
        for one in list(self._callbacks):
            try:
                one.on_event(event)
            except Exception as error:
                self._callbacks.remove(one)
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                self._warn(f"{type(one).__name__} failed and hears no more of this run: {reason}")


def scores(record: RunRecord) -> list[dict[str, object]]:
    """A `scores` event for each system."""
    found: list[dict[str, object]] = []
    for system, metrics in record.metrics.items():
        event: dict[str, object] = {"kind": "scores", "system": system, "label": record.systems[system].label}
        for name, one in metrics.items():
            event |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        found.append(event)
    return found
