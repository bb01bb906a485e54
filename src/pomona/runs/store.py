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

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import TypeAdapter

from pomona.adapters import Adapter, read_adapter, write_adapter
from pomona.engines import NATIVE
from pomona.errors import InputError
from pomona.evaluation.answers import Answers
from pomona.runs.record import RunRecord
from pomona.tuning.settings import Event, Fitted

RECIPE, RECORD, HISTORY, PREDICTIONS, ADAPTER = "recipe.yaml", "record.json", "history.jsonl", "predictions.jsonl", "adapter"


_FITTED, _ANSWERS = TypeAdapter(Fitted), TypeAdapter(Answers)


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
        self._recipe = recipe
        NATIVE.on_main(lambda: self._check(resume=resume))

    def _check(self, *, resume: bool) -> None:
        folder, known = self.folder, self.folder / RECIPE
        if resume:
            if not known.is_file():
                raise InputError("no run to resume", file=folder, fix="Leave out --resume to start one")
            if known.read_text(encoding="utf-8") != self._recipe:
                raise InputError(
                    "the recipe differs from the one that this run began with",
                    file=known,
                    fix="Resume with the same recipe and overrides, or give another --output",
                )
        elif folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
            raise InputError("already exists", file=folder, fix="Give another --output, or --resume to go on with it")

    def begin(self) -> None:
        """Make the folder, with its recipe, where it does not stand yet.

        Raises:
            InputError: the disk refuses.
        """
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
        """The record as it was last written, if any."""
        path = self.folder / RECORD
        text = NATIVE.on_main(lambda: path.read_text(encoding="utf-8") if path.exists() else None)
        return None if text is None else RunRecord.model_validate_json(text).stands_in(self.folder)

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
            self._write(f"checkpoint/{system}/fitted.json", json.dumps(_FITTED.dump_python(fitted, exclude={"adapter"})))
            self.checkpoint(system).unlink(missing_ok=True)

        NATIVE.on_main(write)
        found = self.load_trained(system)
        assert found is not None
        return found

    def load_trained(self, system: str) -> Fitted | None:
        """A system that was trained before, or None."""
        folder = self.folder / "checkpoint" / system
        file = folder / "fitted.json"
        text = NATIVE.on_main(lambda: file.read_text(encoding="utf-8") if file.exists() else None)
        return None if text is None else _FITTED.validate_python(json.loads(text) | {"adapter": read_adapter(folder / ADAPTER)})

    def save_answers(self, system: str, answers: Answers) -> None:
        """Keep a system's answers on the test set."""
        self._write(f"checkpoint/{system}.answers.json", json.dumps(dataclasses.asdict(answers), ensure_ascii=False))

    def load_answers(self, system: str) -> Answers | None:
        """Answers that were given before, or None."""
        path = self.folder / "checkpoint" / f"{system}.answers.json"
        text = NATIVE.on_main(lambda: path.read_text(encoding="utf-8") if path.exists() else None)
        return None if text is None else _ANSWERS.validate_python(json.loads(text))

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
        scratch = path.with_name(f".{path.name}.writing")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)


def _line(values: Mapping[str, object]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
