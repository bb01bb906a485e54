"""Answers in a file: those of a run or of another program, to be scored; and those that an evaluation gave."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pomona.data import Example, read_rows
from pomona.data.formats import place
from pomona.errors import InputError
from pomona.whole_files import write_whole


def read_predictions(path: Path, examples: Sequence[Example]) -> dict[str, list[str | None]]:
    """Each system's answers, in the order of the examples; None where the file has none for an example.

    Rows are found by `id`. A row has a `prediction`, or `predictions` by system, as a run's `predictions.jsonl` has. An answer may
    be null.

    Raises:
        InputError: the file cannot be read; a row without id or answer, or with an answer that is no text; no answer to any
            example.
    """
    index = {example.id: number for number, example in enumerate(examples)}
    found: dict[str, list[str | None]] = {}
    matched = 0
    for row in read_rows(path):
        where = place(path, row.line)
        id = row.fields.get("id")
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise InputError("the id of the example is expected, a text or a whole number", file=where, field="id", value=id)
        number = index.get(str(id))
        answers = _answers(row.fields, path.stem, where)
        matched += number is not None and bool(answers)
        for system, text in answers.items():
            if number is not None:
                found.setdefault(system, [None] * len(examples))[number] = text
    if not matched:
        raise InputError("has no answer to any of the examples", file=path, fix="Give the data that these answers are to")
    return found


def check_output(path: Path) -> None:
    """Refuse a place for `write_predictions` before the work that leads to it.

    Raises:
        InputError: something stands there, or its folder does not.
    """
    if path.exists():
        raise InputError("already exists", file=path, fix="Choose another file")
    if not path.parent.is_dir():
        raise InputError("no such folder", file=path.parent, fix="Make it first, or choose another file")


def prediction_line(
    example: Example, texts: Mapping[str, str | None], losses: Mapping[str, float] | None = None
) -> dict[str, object]:
    """A line of `predictions.jsonl`: the example, every system's answer to it, and its loss in nats per token where that is known.

    A loss that is not finite is null. `group` is there only where the example has one.
    """
    group = {} if example.group is None else {"group": example.group}
    measured = {system: loss if math.isfinite(loss) else None for system, loss in (losses or {}).items()}
    return {
        "id": example.id,
        **group,
        "document": example.document,
        "prompt": example.prompt,
        "references": list(example.references),
        "predictions": dict(texts),
        **({} if losses is None else {"losses": measured}),
    }


def write_predictions(path: Path, examples: Sequence[Example], predictions: Mapping[str, Sequence[str | None]]) -> None:
    """Write each example's id, document, references and answers by system, a JSON object a line; whole or not at all.

    Raises:
        InputError: the disk refuses.
    """
    lines = [
        json.dumps(prediction_line(example, {system: texts[number] for system, texts in predictions.items()}), ensure_ascii=False)
        for number, example in enumerate(examples)
    ]
    try:
        write_whole(path, "\n".join(lines) + "\n", errors="surrogatepass")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error


def _answers(fields: Mapping[str, object], name: str, where: str) -> dict[str, str | None]:
    """System -> answer of one row; `name` is what the system of a single `prediction` is called."""
    several = fields.get("predictions")
    if not isinstance(several, Mapping):
        if "prediction" not in fields:
            raise InputError("is missing: a text or null is expected", file=where, field="prediction")
        return {name: _text(fields["prediction"], where, "prediction")}
    return {str(system): _text(text, where, f"predictions.{system}") for system, text in several.items()}


def _text(answer: object, where: str, field: str) -> str | None:
    if answer is not None and not isinstance(answer, str):
        raise InputError("a text or null is expected", file=where, field=field, value=answer)
    return answer
