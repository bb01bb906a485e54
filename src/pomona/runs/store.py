"""The run folder on disk: what is finished is written whole and at once, so a run that was killed goes on from there.

    recipe.yaml  record.json  history.jsonl  predictions.jsonl  adapter/  report.html     for the reader
    checkpoint/<system>.safetensors        a training run under way
    checkpoint/<system>/                   a trained system: adapter/ and fitted.json
    checkpoint/<system>.answers.json       its answers on the test set

`checkpoint/` goes when the run is done.

Several processes of one run share the folder's disk. The first one writes, and all of them read. A write that no process reads in
this run is done by the first process without the others; all else goes through `on_main`, where they wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from pomona.adapters import Adapter, read_adapter, write_adapter
from pomona.engines import NATIVE
from pomona.errors import InputError
from pomona.evaluation.answers import Answers
from pomona.folder_lock import FolderLock, holds_nothing
from pomona.runs.alone import alone
from pomona.runs.record import FORMAT_VERSION, RunRecord
from pomona.tuning.settings import Event, Fitted
from pomona.whole_files import digest, write_whole
from pomona.writable import check_writable

RECIPE, RECORD, HISTORY, PREDICTIONS, ADAPTER = "recipe.yaml", "record.json", "history.jsonl", "predictions.jsonl", "adapter"


T = TypeVar("T")

_FITTED, _ANSWERS = TypeAdapter(Fitted), TypeAdapter(Answers)
_AGAIN = "--resume then makes this part again"


class RunStore:
    """One run folder. Nothing else in the program knows its file names. Nothing is written before `begin`.

    Args:
        folder: the run's.
        recipe: the resolved recipe as YAML.
        resume: go on with a run that stands there.

    Raises:
        InputError: something stands there and `resume` is not given; nothing to resume; the recipe differs.
    """

    def __init__(self, folder: Path, recipe: str, *, resume: bool) -> None:
        self.folder = folder
        self.tell: Callable[[Event], None] = lambda event: None  # who follows the run; set before it begins
        self._recipe, self._resume = recipe, resume
        self._lock = FolderLock(folder)
        NATIVE.on_main(self._check)

    def _check(self) -> None:
        folder, known = self.folder, self.folder / RECIPE
        check_writable(folder)
        if self._resume:
            if not known.is_file():
                raise InputError("no run to resume", file=folder, fix="Leave out --resume to start one")
            if _text(known) != self._recipe:
                raise InputError(
                    "the recipe differs from the one that this run began with",
                    file=known,
                    fix="Resume with the same recipe and overrides, or give another --output",
                )
        elif folder.exists() and not holds_nothing(folder):
            raise InputError("already exists", file=folder, fix="Give another --output, or --resume to go on with it")

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Within the block no other process writes into the folder. It may be entered again within itself.

        Raises:
            InputError: another process is at work in it, or was since this store looked; the disk refuses.
        """
        return alone(self._lock, self._check)

    def begin(self) -> None:
        """Make the folder, with its recipe, where it does not stand yet.

        Raises:
            InputError: the disk refuses.
        """
        self._resume = True  # from here on what stands there is this run
        NATIVE.on_main(self._begin)
        if not (self.folder / RECIPE).exists():
            raise InputError("is not on a disk that all processes of this run share", file=self.folder, fix="Give another --output")

    def _begin(self) -> None:
        if (self.folder / RECIPE).exists():
            return
        try:
            self._write(RECIPE, self._recipe)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", file=self.folder) from error

    # The record -----------------------------------------------------------------------------------------------------------

    def record(self) -> RunRecord | None:
        """The record as it was last written, if any.

        Raises:
            InputError: it is damaged, or of a newer version of Pomona.
        """
        path = self.folder / RECORD
        found = NATIVE.on_main(lambda: read_record(path) if path.exists() else None)
        return None if found is None else found.stands_in(self.folder)

    def write_record(self, record: RunRecord) -> None:
        """Replace the record."""
        self._write(RECORD, record.stands_in(self.folder).model_dump_json(indent=2) + "\n")

    # History and predictions ----------------------------------------------------------------------------------------------

    def clear_history(self) -> None:
        """Begin the history again: what was trained before tells its events again, in order."""
        self._write(HISTORY, "")

    def append_event(self, event: Event) -> None:
        """Add a line, as it happens."""
        if not NATIVE.is_main:
            return
        with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(_line(event))
        self.tell(event)

    def write_predictions(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write what each system answered to each test example."""
        self._write(PREDICTIONS, "".join(map(_line, rows)))

    # Systems --------------------------------------------------------------------------------------------------------------

    def checkpoint(self, system: str) -> Path:
        """Where the training loop keeps a system's checkpoint."""
        return self.folder / "checkpoint" / f"{system}.safetensors"

    def save_trained(self, system: str, fitted: Fitted) -> Fitted:
        """Keep a trained system, and give it back with its adapter in the folder; its loop's checkpoint is not needed any more."""

        def write() -> None:
            write_adapter(fitted.adapter, self.folder / "checkpoint" / system / ADAPTER, force=True)
            folder = self.folder / "checkpoint" / system / ADAPTER
            files = {path.name: digest(path) for path in sorted(folder.iterdir())}
            self._keep(f"{system}/fitted.json", _FITTED.dump_python(fitted, exclude={"adapter"}) | {"files": files})
            self.checkpoint(system).unlink(missing_ok=True)

        NATIVE.on_main(write)
        found = self.load_trained(system)
        assert found is not None
        return found

    def load_trained(self, system: str) -> Fitted | None:
        """A system that was trained before, or None.

        Raises:
            InputError: one of its files is not as it was written.
        """
        folder = self.folder / "checkpoint" / system

        def check(kept: Any) -> Any:
            for name, known in kept.pop("files").items():
                if digest(folder / ADAPTER / name) != known:
                    raise InputError("is not as it was written", file=folder / ADAPTER / name, fix=f"Delete {folder}; {_AGAIN}")
            return kept

        kept = NATIVE.on_main(lambda: self._kept(f"{system}/fitted.json", check))
        return None if kept is None else _typed(_FITTED, kept | {"adapter": read_adapter(folder / ADAPTER)}, folder)

    def save_answers(self, system: str, answers: Answers) -> None:
        """Keep a system's answers on the test set."""
        if NATIVE.is_main:
            self._keep(f"{system}.answers.json", dataclasses.asdict(answers))

    def load_answers(self, system: str) -> Answers | None:
        """Answers that were given before, or None.

        Raises:
            InputError: the file is not as it was written.
        """
        name = f"{system}.answers.json"
        kept = NATIVE.on_main(lambda: self._kept(name))
        return None if kept is None else _typed(_ANSWERS, kept, self.folder / "checkpoint" / name)

    def write_adapter(self, adapter: Adapter) -> None:
        """Write the exported adapter."""
        write_adapter(adapter, self.folder / ADAPTER, force=True)

    def drop_checkpoints(self) -> None:
        """Drop what only a resumed run needs. The record must say `done` before: half of the checkpoints is none."""
        NATIVE.on_main(lambda: shutil.rmtree(self.folder / "checkpoint", ignore_errors=True))

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all."""
        if not NATIVE.is_main:
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)

    def _keep(self, name: str, part: Any) -> None:
        """Write a part of the run that only a resumed run reads, with a digest."""
        self._write(f"checkpoint/{name}", json.dumps({"sha256": _digest(part), "part": part}))

    def _kept(self, name: str, check: Callable[[Any], Any] = lambda kept: kept) -> Any:
        """The part of that name, or None.

        Raises:
            InputError: it is not as it was written.
        """
        path = self.folder / "checkpoint" / name
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_bytes())
            if found["sha256"] == _digest(found["part"]):
                return check(found["part"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise InputError("is not as it was written", file=path, fix=f"Delete it; {_AGAIN}")


def read_record(path: Path) -> RunRecord:
    """A run's record.

    Raises:
        InputError: the file is damaged, or of a newer version of Pomona.
    """
    try:
        text = path.read_bytes()
        content = json.loads(text)
        version = content.get("format_version", FORMAT_VERSION)
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise InputError(
                f"is of format {version}, and this version of Pomona reads up to {FORMAT_VERSION}", file=path, fix="Update Pomona"
            )
        return RunRecord.model_validate_json(text)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError("is damaged", file=path, fix="Delete it; --resume goes on from the checkpoints without it") from error


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part).encode()).hexdigest()


def _typed(kind: TypeAdapter[T], values: Any, path: Path) -> T:
    try:
        return kind.validate_python(values)
    except ValueError as error:
        raise InputError("does not hold what this run wrote", file=path, fix=f"Delete it; {_AGAIN}") from error


def _line(values: Mapping[str, object]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
