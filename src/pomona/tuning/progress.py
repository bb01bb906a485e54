"""The progress display of a run: its stage, the work done, and the changes of the prune ratio."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from pomona.closed_streams import LastingError
from pomona.plain_text import visible
from pomona.ratios import said_ratio
from pomona.verbosity import verbosity

if TYPE_CHECKING:
    from rich.console import Console

VERBOSE_SECONDS = 3.0
LINE_SECONDS = 30.0
"""Time between two lines about one stage, without a terminal."""

_TICKS = "▁▂▃▄▅▆▇█"


class Progress(Protocol):
    """Receives the progress of every long operation."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins, with `total` units of work; 0: unknown."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished; `note` describes the current state."""

    def end(self, note: str = "") -> None:
        """The stage is over; `note` describes the result."""

    def ratio(self, prune_ratio: float) -> None:
        """The new prune ratio in force."""

    def warn(self, warning: str) -> None:
        """Warn the user; a repeated warning may be ignored."""


class Silent:
    """Shows nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Do nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Do nothing."""

    def end(self, note: str = "") -> None:
        """Do nothing."""

    def ratio(self, prune_ratio: float) -> None:
        """Do nothing."""

    def warn(self, warning: str) -> None:
        """Do nothing."""


class Display:
    """A live bar on a terminal or in a notebook that has ipywidgets.

    Elsewhere plain lines: at the start and end of a stage, and every 30 seconds in between.

    Use as a context manager. `--quiet` leaves only warnings; `--verbose` adds a line for every stage, every prune ratio, and every
    3 seconds.

    Args:
        console: where to write; standard error by default, because standard output is for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = console or Console(file=cast(TextIO, LastingError()), highlight=False)
        in_notebook = self._console.is_jupyter and find_spec("ipywidgets") is not None
        self._live = self._console.is_terminal or in_notebook
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self._console,
            transient=True,
            disable=not self._live or verbosity() == "quiet",
        )
        self._lines = not self._live or verbosity() == "verbose"
        self._line_seconds = VERBOSE_SECONDS if verbosity() == "verbose" else LINE_SECONDS
        self._task = None
        self._stage = ""
        self._started = 0.0
        self._told, self._done, self._total = 0.0, 0, 0
        self._ratios: list[float] = []
        self._warned: set[str] = set()

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, stage: str, total: int) -> None:
        """Show a new bar, or print that the stage begins."""
        stage = visible(stage)
        self._stage, self._started, self._ratios = stage, time.monotonic(), []
        self._told, self._done, self._total = self._started, 0, total
        if self._lines:
            self._say(f"{stage}: {f'0 of {total}' if total else 'begins'}")
        self._task = self._bars.add_task(stage, total=total or None, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar, or print the progress if nothing was printed for 30 seconds."""
        if self._task is None:
            return
        told = " ".join(filter(None, (visible(note), self._trace())))
        self._bars.update(self._task, advance=done, note=told)
        self._done += done
        if self._lines and time.monotonic() - self._told >= self._line_seconds:
            self._told = time.monotonic()
            place = f"{self._done} of {self._total}" if self._total else f"{self._done} done"
            self._say(f"{self._stage}: " + ", ".join(filter(None, (place, told))))

    def end(self, note: str = "") -> None:
        """Replace the bar with a line."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        seconds = time.monotonic() - self._started
        line = " ".join(filter(None, (f"{self._stage:<44} {seconds:6.1f} s ", note, self._trace())))
        self._say(line)

    def _say(self, line: str) -> None:
        if verbosity() != "quiet":
            self._console.print(visible(line), soft_wrap=True, markup=False)

    def ratio(self, prune_ratio: float) -> None:
        """Add a tick to the ratio's trace."""
        self._ratios.append(prune_ratio)
        if verbosity() == "verbose":
            self._say(f"{self._stage}: prune ratio {prune_ratio:.3f}")

    def warn(self, warning: str) -> None:
        """Print each warning once."""
        if warning not in self._warned:
            self._warned.add(warning)
            self._console.print(visible(f"warning: {warning}"), soft_wrap=True, markup=False)

    def _trace(self) -> str:
        if not self._ratios:
            return ""
        ticks = "".join(_TICKS[min(7, int(ratio * 8))] for ratio in self._ratios[-32:])
        return f"prune ratio {said_ratio(self._ratios[-1])} {ticks}"


@contextlib.contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """Progress where a person looks on, if the caller gave no display: in a notebook or on a terminal; else nothing is shown."""
    from rich.console import Console

    if progress is not None:
        yield progress
        return
    console = Console(file=cast(TextIO, LastingError()), highlight=False)
    if console.is_jupyter or console.is_terminal:
        with Display(console) as display:
            yield display
    else:
        yield Silent()
