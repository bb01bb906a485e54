from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pomona.errors import InputError
from pomona.report.read import read_run
from pomona.runs.record import FORMAT_VERSION, RunRecord

Save = Callable[..., Path]


def test_a_whole_folder(record: RunRecord, save: Save):
    run = read_run(save(record, steps=52, examples=4))
    assert run.record == record
    assert [len(run.steps), len(run.epochs), len(run.predictions)] == [156, 6, 4]
    assert run.steps[0].system == "target_lora"
    assert run.epochs[-1].step == 52
    assert run.notes == ()


def test_rounds_come_from_the_history_where_the_record_has_none(record: RunRecord, save: Save):
    folder = save(record, steps=2, examples=1)
    (folder / "record.json").write_text(record.model_copy(update={"rounds": [], "status": "interrupted"}).model_dump_json())
    assert read_run(folder).record.rounds == record.rounds


def test_missing_lines_are_noted(record: RunRecord, save: Save):
    folder = save(record)
    (folder / "history.jsonl").unlink()
    (folder / "predictions.jsonl").unlink()
    run = read_run(folder)
    assert run.steps == run.epochs == run.predictions == ()
    assert [note.split(",")[0] for note in run.notes] == [
        "The folder has no history.jsonl",
        "The folder has no predictions.jsonl",
    ]


def test_a_torn_last_line_is_forgiven_only_to_an_unfinished_run(record: RunRecord, save: Save):
    folder = save(record, steps=3, examples=1)
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"kind": "step", "sys')
    with pytest.raises(InputError, match=r"history\.jsonl:20: Invalid JSON"):
        read_run(folder)
    (folder / "record.json").write_text(record.model_copy(update={"status": "running"}).model_dump_json())
    assert len(read_run(folder).steps) == 9


def broken_record(folder: Path) -> None:
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"status": "done",', '"status": "done"'))


def unknown_key(folder: Path) -> None:
    raw = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**raw, "colour": "blue"}))


def wrong_type(folder: Path) -> None:
    raw = json.loads((folder / "record.json").read_text())
    raw["splits"]["train"]["examples"] = "many"
    (folder / "record.json").write_text(json.dumps(raw))


def newer(folder: Path) -> None:
    raw = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**raw, "format_version": FORMAT_VERSION + 1, "new_field": 1}))


def replace_line(name: str, number: int, line: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        lines[number - 1] = line
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "record.json").unlink(), r"run: the folder holds no record\.json\. Give the folder"),
        (lambda folder: (folder / "record.json").write_bytes(b"\xff\xfe{"), r"record\.json: not UTF-8 at byte 0"),
        (lambda folder: (folder / "record.json").write_text("[1]"), r"record\.json: Input should be .*\[1\]"),
        (broken_record, r"record\.json:4: not JSON: Expecting ',' delimiter"),
        (unknown_key, r"record\.json: colour: Extra inputs are not permitted \(got 'blue'\)"),
        (wrong_type, r"record\.json: splits\.train\.examples: Input should be a valid integer.*\(got 'many'\)"),
        (newer, r"record\.json: format_version: this Pomona reads records up to format 1 \(got 2\)\. Update Pomona"),
        (replace_line("history.jsonl", 3, "{"), r"history\.jsonl:3: Invalid JSON"),
        (replace_line("history.jsonl", 2, '{"kind": "leap"}'), r"history\.jsonl:2: .*'leap'"),
        (replace_line("predictions.jsonl", 2, '{"id": "a", "document": "d"}'), r"predictions\.jsonl:2: references: Field required"),
        (replace_line("predictions.jsonl", 1, "\x00"), r"predictions\.jsonl:1: Invalid JSON"),
    ],
)
def test_damage_is_one_line_with_its_place(record: RunRecord, save: Save, damage: Callable[[Path], None], says: str):
    folder = save(record, steps=3, examples=3)
    damage(folder)
    with pytest.raises(InputError, match=says) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path: Path):
    with pytest.raises(InputError, match="nowhere: no such run folder"):
        read_run(tmp_path / "nowhere")
