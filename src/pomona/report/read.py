"""Read and check a run folder: `record.json` and the two `.jsonl` files. An error names the file and the line.

An unfinished or failed run can be read too: parts that it has not written are empty, and `notes` says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Discriminator, Tag, TypeAdapter, ValidationError

from pomona.errors import InputError
from pomona.ratios import RoundRecord
from pomona.runs.record import FORMAT_VERSION, RunRecord
from pomona.stand_ins import refuse_pointer

T = TypeVar("T")


class StepLine(BaseModel):
    """An optimizer step in `history.jsonl`. `loss`: nats per completion token."""

    kind: Literal["step"]
    system: str
    step: int
    epoch: float
    loss: float | None = None
    learning_rate: float | None = None
    prune_ratio: float | None = None


class EpochLine(BaseModel):
    """The end of an epoch in `history.jsonl`. `dev_score`: if epochs are judged by a metric; `best`: the best so far.

    `kept_epoch`: the best epoch so far, where a later epoch can make an earlier one the best (`select_tolerance`).

    When a ratio is settled, the best epoch of the search appears again, with that step, and pruned at that ratio.
    """

    kind: Literal["epoch"]
    system: str
    step: int
    epoch: float
    dev_loss: float | None = None
    dev_score: float | None = None
    best: bool = False
    kept_epoch: int | None = None


class SettledLine(BaseModel):
    """A controller's answer in `history.jsonl`, in force from this step on.

    `dev_check`: as in `Answer`, as lists; `by_group`: the ratio of each group of layers, if each has its own.
    """

    kind: Literal["settled"]
    system: str
    step: int
    prune_ratio: float
    dev_check: list[tuple[float, float, float]]
    by_group: list[float] | None = None


class PredictionLine(BaseModel):
    """A test example in `predictions.jsonl`, with every system's answer; null if there is none to score."""

    id: str
    document: str
    prompt: str | None = None
    references: list[str]
    predictions: dict[str, str | None]


def _kind(line: object) -> object:
    return line.get("kind") if isinstance(line, dict) else getattr(line, "kind", None)


def _own_fields(line: object) -> object:
    return {key: value for key, value in line.items() if key not in ("kind", "system")} if isinstance(line, dict) else line


HistoryLine = Annotated[
    Annotated[StepLine, Tag("step")]
    | Annotated[EpochLine, Tag("epoch")]
    | Annotated[RoundRecord, BeforeValidator(_own_fields), Tag("round")]
    | Annotated[SettledLine, Tag("settled")],
    Discriminator(_kind),
]


@dataclass(frozen=True)
class RunFolder:
    """A run read from its folder.

    Args:
        path: the folder.
        record: the content of `record.json`; its rounds come from the history if the run ended before it recorded them.
        steps, epochs: the history, in order.
        predictions: in the order of the test set.
        notes: one sentence for each missing file.
    """

    path: Path
    record: RunRecord
    steps: tuple[StepLine, ...] = ()
    epochs: tuple[EpochLine, ...] = ()
    predictions: tuple[PredictionLine, ...] = ()
    notes: tuple[str, ...] = ()


def read_run(path: Path | str) -> RunFolder:
    """Read the run folder at `path`.

    Args:
        path: a folder that holds `record.json`; `history.jsonl` and `predictions.jsonl` may be missing.

    Raises:
        InputError: no such folder, no record in it, a record of a newer format, or a line that cannot be read.
    """
    folder = Path(path)
    record = _read_record(folder)
    done = record.status == "done"
    history: list[StepLine | EpochLine | RoundRecord | SettledLine] = []
    predictions: list[PredictionLine] = []
    notes: list[str] = []
    if (folder / "history.jsonl").exists():
        history = _read_lines(folder / "history.jsonl", TypeAdapter(HistoryLine), torn_end=not done)
    else:
        notes.append("The folder has no history.jsonl, so there are no loss curves.")
    if (folder / "predictions.jsonl").exists():
        predictions = _read_lines(folder / "predictions.jsonl", TypeAdapter(PredictionLine), torn_end=not done)
    else:
        notes.append("The folder has no predictions.jsonl, so there are no examples.")
    if not record.rounds:
        rounds = [line for line in history if isinstance(line, RoundRecord)]
        record = record.model_copy(update={"rounds": rounds})
    return RunFolder(
        path=folder,
        record=record,
        steps=tuple(line for line in history if isinstance(line, StepLine)),
        epochs=tuple(line for line in history if isinstance(line, EpochLine)),
        predictions=tuple(predictions),
        notes=tuple(notes),
    )


def _read_record(folder: Path) -> RunRecord:
    file = folder / "record.json"
    if not folder.is_dir():
        raise InputError("no such run folder", file=folder, fix="Give the folder that `pomona adapt` wrote")
    if not file.is_file():
        raise InputError("the folder holds no record.json", file=folder, fix="Give the folder that `pomona adapt` wrote")
    text = _read_text(file)
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", file=f"{file}:{error.lineno}") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"this Pomona reads records up to format {FORMAT_VERSION}",
            file=file,
            field="format_version",
            value=version,
            fix="Update Pomona",
        )
    try:
        return RunRecord.model_validate(raw).stands_in(folder)
    except ValidationError as error:
        raise _input_error(error, str(file)) from error


def _read_lines(file: Path, adapter: TypeAdapter[T], *, torn_end: bool) -> list[T]:
    """The lines of a `.jsonl` file; `torn_end` accepts an incomplete last line, which a killed run may leave."""
    text = _read_text(file)
    lines = text.split("\n")
    found: list[T] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(adapter.validate_json(line))
        except ValidationError as error:
            if torn_end and number == len(lines):
                break
            raise _input_error(error, f"{file}:{number}") from error
    return found


def _read_text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start}", file=file) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error
    refuse_pointer(file, text[:64].encode())
    return text


def _input_error(error: ValidationError, place: str) -> InputError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    return InputError(first["msg"].removesuffix("."), file=place, field=field, value=first["input"])
