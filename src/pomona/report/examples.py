"""Ten test examples to read, with every system's answer beside the references."""

from __future__ import annotations

from dataclasses import dataclass

from pomona.report.read import RunFolder
from pomona.report.sentences import POMONA
from pomona.report.wording import system_label

_SHOWN_CHARACTERS = 240
_END_CHARACTERS = 120


@dataclass(frozen=True)
class Answer:
    """The answer of one system, None if there is nothing to score; `strong`: the answer is Pomona's."""

    label: str
    text: str | None
    strong: bool


@dataclass(frozen=True)
class ShownExample:
    """A test example; `opening`: the start and the end of a prompt that is too long to show at once."""

    id: str
    prompt: str
    opening: str | None
    references: tuple[str, ...]
    answers: tuple[Answer, ...]


def shown_examples(run: RunFolder, count: int = 10) -> tuple[ShownExample, ...]:
    """Examples at equal distances through the test set: the position decides, so that the choice is neutral.

    Args:
        run: the run.
        count: the largest number of examples, >= 1.
    """
    n = len(run.predictions)
    chosen = [run.predictions[i * n // min(count, n)] for i in range(min(count, n))]
    known = list(run.record.systems)
    return tuple(
        ShownExample(
            id=line.id,
            prompt=line.prompt or line.document,
            opening=_opening(line.prompt or line.document),
            references=tuple(line.references),
            answers=tuple(
                Answer(system_label(run.record, system), line.predictions[system], system == POMONA)
                for system in sorted(line.predictions, key=lambda name: known.index(name) if name in known else len(known))
            ),
        )
        for line in chosen
    )


def _opening(prompt: str) -> str | None:
    """Start and end of the prompt: the document comes first, the question last."""
    if len(prompt) <= (_SHOWN_CHARACTERS + _END_CHARACTERS) * 1.25:
        return None
    start, end = prompt[:_SHOWN_CHARACTERS], prompt[-_END_CHARACTERS:]
    start = start.rsplit(maxsplit=1)[0] if " " in start else start
    end = end.split(maxsplit=1)[-1] if " " in end else end
    return f"{start} … {end}"
