"""The run folder: what is finished is whole, what stands there is never overwritten by another run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from tests.adapters.builders import Q0, V0, random_factors

from pomona.adapters import Adapter, write_adapter
from pomona.control import Grasp
from pomona.errors import InputError, command_line
from pomona.evaluation.answers import Answers
from pomona.ratios import Answer, CurvePoint
from pomona.runs.record import RunRecord
from pomona.runs.store import RunStore
from pomona.tuning.settings import Fitted, Sparsity

RECIPE = "name: x\n"


def record(**changes: object) -> RunRecord:
    values: dict[str, object] = {
        "status": "running", "name": "x", "started": "2026-01-01T00:00:00+00:00", "recipe": {}, "environment": {},
        "fingerprints": {}, "model": "m", "task": "Summarization", "primary_metric": "rouge_l", "splits": {},
    }  # fmt: skip
    return RunRecord.model_validate(values | changes)


def begun(folder: Path) -> RunStore:
    store = RunStore(folder, RECIPE, resume=False)
    store.begin()
    return store


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_before_begin(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "a" / "run", RECIPE, resume=False)
    assert store.record() is None
    assert list(tmp_path.iterdir()) == []
    store.begin()
    assert files(tmp_path) == {"a/run/recipe.yaml"}
    assert (tmp_path / "a" / "run" / "recipe.yaml").read_text() == RECIPE


def test_an_empty_folder_may_stand_there(tmp_path: Path) -> None:
    begun(tmp_path)
    assert files(tmp_path) == {"recipe.yaml"}


@pytest.mark.parametrize("name", ["recipe.yaml", "notes.txt", "sub/.hidden"])
def test_anything_else_that_stands_there_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"already exists\. Give another `output`, or resume=True") as caught:
        RunStore(tmp_path, RECIPE, resume=False)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert files(tmp_path) == {name}


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        RunStore(tmp_path / "run", RECIPE, resume=False)


def test_resume_needs_a_run_of_the_same_recipe(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no run to resume"):
            RunStore(folder, RECIPE, resume=True)
    begun(tmp_path)
    with pytest.raises(InputError, match=r"recipe\.yaml: the recipe differs"):
        RunStore(tmp_path, "name: y\n", resume=True)
    assert (tmp_path / "recipe.yaml").read_text() == RECIPE
    resumed = RunStore(tmp_path, RECIPE, resume=True)
    resumed.begin()
    assert files(tmp_path) == {"recipe.yaml"}


def test_the_record_comes_back_equal(tmp_path: Path) -> None:
    store = begun(tmp_path)
    first = record(warnings=["ü"], prune_ratio=0.1 + 0.2)
    store.write_record(first)
    assert RunStore(tmp_path, RECIPE, resume=True).record() == first
    second = record(status="done")
    store.write_record(second)
    assert store.record() == second


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = begun(tmp_path)
    store.write_record(record())
    for broken in ("write_bytes", "replace"):
        with mock.patch.object(Path, broken, side_effect=OSError("no space left")), pytest.raises(OSError, match="no space"):
            store.write_record(record(status="done"))
        found = store.record()
        assert found is not None
        assert found.status == "running"
    store.write_record(record(status="done"))
    assert files(tmp_path) == {"recipe.yaml", "record.json"}


def test_predictions_are_whole_or_absent(tmp_path: Path) -> None:
    store = begun(tmp_path)

    def rows() -> Iterator[Mapping[str, object]]:
        yield {"id": "a", "text": "é\n\u2028"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write_predictions(rows())
    assert not (tmp_path / "predictions.jsonl").exists()
    store.write_predictions([{"id": "a", "text": "é\n\u2028"}, {"id": "b"}])
    raw = (tmp_path / "predictions.jsonl").read_bytes()
    assert [json.loads(line) for line in raw.splitlines()] == [{"id": "a", "text": "é\n\u2028"}, {"id": "b"}]


def test_history_grows_line_by_line_and_begins_again(tmp_path: Path) -> None:
    store = begun(tmp_path)
    store.clear_history()
    store.append_event({"kind": "step", "loss": 0.1})
    store.append_event({"kind": "epoch", "dev_loss": None})
    assert (tmp_path / "history.jsonl").read_text() == '{"kind": "step", "loss": 0.1}\n{"kind": "epoch", "dev_loss": null}\n'
    store.clear_history()
    assert (tmp_path / "history.jsonl").read_text() == ""


def test_a_trained_system_comes_back_as_it_was(tmp_path: Path) -> None:
    store = begun(tmp_path)
    controller = Grasp(interval_steps=1)
    state = controller.start(5, 10)
    losses = [[2.0 + 0.1 * g + 0.01 * n for n in range(4)] for g in range(3)]
    state = controller.observe(state, 1, [2.0, 2.1, 2.2, 2.3], losses)
    generator = torch.Generator().manual_seed(1)
    adapter = Adapter({Q0: random_factors(generator, 4), V0: random_factors(generator, 2)}, "base")
    answer = Answer(0.3, 0.1, 0.5, flat=True, curve=(CurvePoint(0.1, -0.2, -0.3, 0.1), CurvePoint(0.5, 0.0, 0.0, 0.0)))
    fitted = Fitted(
        adapter=adapter,
        epoch=2,
        dev_loss=1 / 3,
        dev_scores=(-0.1 - 0.2, -1e-300),
        sparsity={Q0: Sparsity(0.1 + 0.2, 0.0, 48, 32), V0: Sparsity(1.0, 0.5, 24, 16)},
        merge_weights={Q0: [1.0, -0.5], V0: [0.1 + 0.2, 0.0]},
        answer=answer,
        control=state,
        importance={Q0: 0.25, V0: 1e-12},
        history=[{"kind": "step", "system": "s", "step": 1, "loss": 0.1}],
        train_seconds=1.5,
        probe_seconds=0.5,
        tokens=77,
    )
    checkpoint = store.checkpoint("s")
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"the loop's own")
    assert store.load_trained("s") is None
    store.save_trained("s", fitted)
    assert not checkpoint.exists()
    found = RunStore(tmp_path, RECIPE, resume=True).load_trained("s")
    assert found is not None
    loaded, trained = found.adapter, found
    assert not trained.reused
    assert controller.load_state(trained.control) == state
    for field in dataclasses.fields(Fitted):
        if field.name not in {"adapter", "control"}:
            assert getattr(trained, field.name) == getattr(fitted, field.name), field.name
    store.save_trained("s", dataclasses.replace(trained, reused=True))
    again = store.load_trained("s")
    assert again is not None
    assert again.reused
    for field in dataclasses.fields(Fitted):
        if field.name not in {"adapter", "reused"}:
            assert getattr(again, field.name) == getattr(trained, field.name), field.name
    assert trained.sparsity[Q0].entries_A == 48  # not a plain list of numbers
    for module in adapter:
        rank = adapter[module].rank
        assert torch.equal(loaded[module].A[:rank], adapter[module].A)
        assert torch.equal(loaded[module].B[:, :rank], adapter[module].B)
        assert not loaded[module].A[rank:].any()


def test_a_system_without_its_last_file_is_not_trained(tmp_path: Path) -> None:
    store = begun(tmp_path)
    generator = torch.Generator().manual_seed(1)
    fitted = Fitted(Adapter({Q0: random_factors(generator, 2)}), 1, None, (), {}, {}, None, None, {}, [], 0.0, 0.0, 1)
    with mock.patch.object(RunStore, "_write", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        store.save_trained("s", fitted)
    assert store.load_trained("s") is None
    store.save_trained("s", fitted)
    found = store.load_trained("s")
    assert found is not None
    assert found.answer is None
    assert found.control is None


def test_answers_come_back_equal(tmp_path: Path) -> None:
    store = begun(tmp_path)
    assert store.load_answers("zero_shot") is None
    answers = Answers(("a", "", "\u2028\nß"), (0.1 + 0.2, 1e-300, 3.0), 0.25)
    store.save_answers("zero_shot", answers)
    assert store.load_answers("zero_shot") == answers
    assert store.load_answers("svd") is None


def test_the_end_leaves_the_adapter_and_no_checkpoints(tmp_path: Path) -> None:
    store = begun(tmp_path)
    adapter = Adapter({Q0: random_factors(torch.Generator().manual_seed(1), 2)}, "base")
    store.save_answers("svd", Answers(("a",), (1.0,), 0.0))
    store.write_adapter(adapter)
    store.write_adapter(adapter)  # a run that was killed just then writes it again
    store.drop_checkpoints()
    store.drop_checkpoints()
    assert files(tmp_path) == {"recipe.yaml", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


def test_a_folder_that_a_kill_left_before_its_first_file_can_be_begun(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on nowhere\n")
    (tmp_path / ".recipe.yaml.writing").write_text("na")
    with pytest.raises(InputError, match="no run to resume"):
        RunStore(tmp_path, RECIPE, resume=True)
    store = RunStore(tmp_path, RECIPE, resume=False)
    with store.alone():
        store.begin()
    assert files(tmp_path) == {"recipe.yaml"}


def test_one_of_two_stores_writes(tmp_path: Path) -> None:
    """Two runs that looked at the same new folder: the first one begins, and the other is refused, while it runs and after."""
    first, second = RunStore(tmp_path / "run", RECIPE, resume=False), RunStore(tmp_path / "run", RECIPE, resume=False)
    with first.alone():
        first.begin()
        with first.alone():
            pass
        held = rf"run: process {os.getpid()} on .* is writing into this folder"
        for other in (second, RunStore(tmp_path / "run", RECIPE, resume=True)):
            with pytest.raises(InputError, match=held), other.alone():
                pass
    with pytest.raises(InputError, match="run: already exists"), second.alone():
        pass
    with RunStore(tmp_path / "run", RECIPE, resume=True).alone():
        pass
    assert files(tmp_path / "run") == {"recipe.yaml"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], r"record\.json: is damaged\. Delete it; --resume goes on"),
        (lambda text: "", r"record\.json: is damaged"),
        (lambda text: "[1]", r"record\.json: is damaged"),
        (lambda text: text.replace('"running"', "7"), r"record\.json: is damaged"),
        (lambda text: "[" * 100_000, r"record\.json: is damaged"),
        (
            lambda text: text.replace('"format_version": 1', '"format_version": 99'),
            r"record\.json: is of format 99, and this version",
        ),
    ],
    ids=["half", "empty", "a list", "another type", "deep", "newer"],
)
def test_a_damaged_record_is_named(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    store = begun(tmp_path)
    store.write_record(record())
    path = tmp_path / "record.json"
    path.write_text(damage(path.read_text()))
    with command_line(), pytest.raises(InputError, match=message):
        store.record()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-9],
        lambda raw: b"",
        lambda raw: b"{}",
        lambda raw: b"[]",
        lambda raw: raw.replace(b"0.5", b"0.6"),
        lambda raw: b"\xff" + raw,
    ],
    ids=["half", "empty", "no part", "a list", "another value", "not UTF-8"],
)
def test_a_part_that_is_not_as_it_was_written_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = begun(tmp_path)
    store.save_answers("pomona", Answers(("é",), (0.5,), 1.0))
    assert store.load_answers("pomona") == Answers(("é",), (0.5,), 1.0)
    path = tmp_path / "checkpoint" / "pomona.answers.json"
    path.write_bytes(damage(path.read_bytes()))
    with (
        command_line(),
        pytest.raises(InputError, match=r"pomona\.answers\.json: is not as it was written\. Delete it; --resume then"),
    ):
        store.load_answers("pomona")


def test_a_trained_adapter_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    store, generator = begun(tmp_path), torch.Generator().manual_seed(1)
    one, other = (Adapter({Q0: random_factors(generator, 2)}) for _ in range(2))
    store.save_trained("pomona", Fitted(one, 1, None, (), {}, {}, None, None, {}, [], 0.0, 0.0, 1))
    write_adapter(other, tmp_path / "other")
    kept = tmp_path / "checkpoint" / "pomona" / "adapter"
    shutil.copy(tmp_path / "other" / "adapter_model.safetensors", kept)
    with (
        command_line(),
        pytest.raises(InputError, match=r"adapter_model\.safetensors: is not as it was written\. Delete .*pomona; --resume"),
    ):
        store.load_trained("pomona")
    (kept / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"fitted\.json: is not as it was written"):
        store.load_trained("pomona")
