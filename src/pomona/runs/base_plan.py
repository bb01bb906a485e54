"""The plan of a piece of work: everything that can be wrong is found, and what it will take is said, before it begins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pomona.adapters import Finding
from pomona.runs.estimate import Training, TrialStep
from pomona.runs.sizes import said_count, said_duration

_COLUMNS = ("training", "steps", "rounds", "tokens", "read", "time")


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan(ABC):
    """What is going to be done. Nothing is trained or written yet.

    Args:
        warnings: all that a user should know before it begins, each once.
        trainings: in order.
        prepare_seconds: what reading and loading took.
        least_bytes: of memory that training takes without activations: weights, factors, their gradients, the optimizer.
        trial: what a step of the real model takes; None: not known.
        untimed: why it is not known.
    """

    warnings: tuple[str, ...]
    trainings: tuple[Training, ...]
    prepare_seconds: float
    least_bytes: int
    trial: TrialStep | None = None
    untimed: str = "no trial step was made"

    @abstractmethod
    def facts(self) -> list[str]:
        """What the work is on, a line each."""

    @abstractmethod
    def work(self) -> list[str]:
        """What else is made besides trainings, a line each."""

    def findings(self, subject: str) -> list[Finding]:
        """Facts and warnings, as `pomona check` lists them; `subject` names the recipe."""
        facts = [Finding("ok", subject, one) for one in self.facts()]
        return facts + [Finding("warning", subject, one) for one in self.warnings]

    def lines(self) -> list[str]:
        """What it will take, as text: a table of the trainings, then the sums."""
        rows = [self._row(one) for one in self.trainings]
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
        table = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
            for row in ([_COLUMNS, *rows] if rows else ())
        ]
        found = self.summary()
        steps, rounds, probes, tokens = (int(str(found[name])) for name in ("steps", "rounds", "probes", "tokens"))
        searched = f", {rounds} rounds of the controller with {probes} masks on trial" if rounds else ""
        return [
            *table,
            f"in all: at most {steps} optimizer steps on {said_count(tokens)} tokens{searched}",
            *self.work(),
            f"memory: {self._memory()}",
            f"time: {self._time()}",
        ]

    def summary(self) -> dict[str, object]:
        """What it will take, as JSON can hold it; `seconds` and `peak_bytes` are null where no trial was made."""
        trainings = [
            {
                "name": one.name,
                "runs": one.runs,
                "steps": one.steps,
                "rounds": one.rounds,
                "probes": one.probes,
                "tokens": one.tokens,
                "read_tokens": one.read_tokens,
                "seconds": one.seconds,
            }
            for one in self.trainings
        ]
        return {
            "trainings": trainings,
            "steps": sum(one.steps for one in self.trainings),
            "rounds": sum(one.rounds for one in self.trainings),
            "probes": sum(one.probes for one in self.trainings),
            "tokens": sum(one.tokens for one in self.trainings),
            "read_tokens": sum(one.read_tokens for one in self.trainings),
            "seconds": self._seconds,
            "least_bytes": self.least_bytes,
            "peak_bytes": None if self.trial is None else self.trial.memory_bytes,
        }

    @property
    def _seconds(self) -> float | None:
        found = [one.seconds for one in self.trainings]
        return None if None in found else sum(one or 0.0 for one in found)

    def _row(self, one: Training) -> Sequence[str]:
        return (
            one.name if one.runs == 1 else f"{one.name}, {one.runs} runs",
            str(one.steps),
            str(one.rounds or "-"),
            said_count(one.tokens),
            said_count(one.read_tokens),
            "-" if one.seconds is None else said_duration(one.seconds),
        )

    def _memory(self) -> str:
        least = f"{self.least_bytes / 1e9:.2f} GB for weights, factors, gradients and optimizer"
        if self.trial is None or self.trial.memory_bytes is None:
            return f"{least}; activations come on top"
        return f"{self.trial.memory_bytes / 1e9:.2f} GB at the peak of a step on the longest batch; {least}"

    def _time(self) -> str:
        if self._seconds is None:
            return f"not known: {self.untimed}"
        step = f", a step taking {self.trial.step_seconds:.2g} s" if self.trial is not None else ""
        return f"about {said_duration(self._seconds)} of training and probes{step}"
