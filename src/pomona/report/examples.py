"""Ten test examples to read, with every system's answer beside the references."""

from __future__ import annotations

from dataclasses import dataclass

from pomona.report.read import RunFolder
from pomona.report.sentences import POMONA
from pomona.report.wording import system_label

_SHOWN_CHARACTERS = 240


@dataclass(frozen=True)
class Answer:
    """What one system wrote; `strong`: it is Pomona's."""

    label: str
    text: str
    strong: bool


@dataclass(frozen=True)
class ShownExample:
    """A test example; `opening` is the start of the document where that is too long to show at once."""

    id: str
    document: str
    opening: str | None
    references: tuple[str, ...]
    answers: tuple[Answer, ...]


def shown_examples(run: RunFolder, count: int = 10) -> tuple[ShownExample, ...]:
    """Examples at even distances through the test set: chosen by position, so that nobody picked them.

    Args:
        run: the run.
        count: how many at most, >= 1.
    """
    n = len(run.predictions)
    chosen = [run.predictions[i * n // min(count, n)] for i in range(min(count, n))]
    known = list(run.record.systems)
    return tuple(
        ShownExample(
            id=line.id,
            document=line.document,
            opening=_opening(line.document),
            references=tuple(line.references),
            answers=tuple(
                Answer(system_label(run.record, system), line.predictions[system], system == POMONA)
                for system in sorted(line.predictions, key=lambda name: known.index(name) if name in known else len(known))
            ),
        )
        for line in chosen
    )


def _opening(document: str) -> str | None:
    if len(document) <= _SHOWN_CHARACTERS * 1.25:
        return None
    cut = document[:_SHOWN_CHARACTERS]
    return cut.rsplit(maxsplit=1)[0] if " " in cut else cut
