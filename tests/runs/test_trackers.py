"""Trackers and callbacks: they hear of everything, they change nothing, and they cannot end a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.setting import adapter_bytes, call, inside, make_setting, recipe, write_recipe

import pomona
from pomona.errors import InputError, MissingPackageError
from pomona.runs.callbacks import Callbacks
from pomona.runs.trackers import TRACKERS, check_trackers, trackers
from pomona.tuning.progress import Silent

QUICK = {
    "tuning": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01},
    "controller": {"name": "grasp", "interval_steps": 2},
    "evaluation": {"baselines": ["zero_shot"], "draws": 100},
}


class Heard:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, object]] = []

    def on_event(self, event: Mapping[str, object]) -> None:
        self.events.append(event)


class Broken:
    """Fails at the third event."""

    heard = 0

    def on_event(self, event: Mapping[str, object]) -> None:
        self.heard += 1
        if self.heard == 3:
            raise OSError("no\nnetwork")


class Warned(Silent):
    """A display that keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("trackers"))
    write_recipe(folder / "plain.yaml", recipe(name="plain", **QUICK))
    write_recipe(folder / "tracked.yaml", recipe(name="plain", report_to="tensorboard", **QUICK))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> tuple[pomona.RunRecord, Heard, Broken, Warned]:
    heard, broken, display = Heard(), Broken(), Warned()
    with inside(folder):
        record = pomona.adapt("tracked.yaml", "tracked", callbacks=[broken, heard], progress=display)
    return record, heard, broken, display


def test_a_callback_hears_of_everything_in_order(folder: Path, run: tuple[pomona.RunRecord, Heard, Broken, Warned]) -> None:
    record, heard, _, _ = run
    kinds = [event["kind"] for event in heard.events]
    assert (kinds[0], kinds[-2:]) == ("begin", ["report", "end"])
    history = [json.loads(line) for line in (folder / "tracked/history.jsonl").read_text().splitlines()]
    assert json.loads(json.dumps(heard.events[1 : 1 + len(history)])) == history
    told = [event for event in heard.events if event["kind"] == "scores"]
    assert [event["system"] for event in told] == list(record.metrics)
    assert told[-1]["rouge_l_low"] == record.metrics["pomona"]["rouge_l"].low
    assert heard.events[-1] == {"kind": "end", "status": "done"}


def test_a_callback_that_fails_warns_once_and_ends_nothing(run: tuple[pomona.RunRecord, Heard, Broken, Warned]) -> None:
    record, _, broken, display = run
    assert record.status == "done"
    assert broken.heard == 3
    said = [one for one in display.warnings if "Broken" in one]
    assert said == ["Broken failed and hears no more of this run: OSError: no network"]
    assert record.warnings == [one for one in record.warnings if "Broken" not in one]


def test_tensorboard_has_loss_ratio_rounds_scores_and_report(
    folder: Path, run: tuple[pomona.RunRecord, Heard, Broken, Warned]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, heard, _, _ = run
    found = EventAccumulator(str(folder / "tracked/tensorboard"))
    found.Reload()
    steps = [event for event in heard.events if event["kind"] == "step" and event["system"] == "pomona"]
    losses: Any = [(one.step, one.value) for one in found.Scalars("pomona/loss")]
    assert [step for step, _ in losses] == [event["step"] for event in steps]
    assert [value for _, value in losses] == pytest.approx([event["loss"] for event in steps], rel=1e-6)
    assert len(found.Scalars("pomona/prune_ratio")) >= len(steps)
    rounds = found.Scalars("pomona/round_prune_ratio_after")
    assert [one.value for one in rounds] == pytest.approx([one.prune_ratio_after for one in record.rounds], rel=1e-6)
    score = record.metrics["pomona"]["rouge_l"]
    (high,) = found.Scalars("scores/pomona/rouge_l_high")
    assert high.value == pytest.approx(score.high, rel=1e-6)
    (report,) = found.Tensors("report/text_summary")
    assert b"report.html" in report.tensor_proto.string_val[0]


def test_tracking_changes_nothing_and_is_no_part_of_the_run(
    folder: Path, run: tuple[pomona.RunRecord, Heard, Broken, Warned]
) -> None:
    with inside(folder):
        pomona.adapt("plain.yaml", "untracked")
        assert pomona.adapt("plain.yaml", "tracked", resume=True).status == "done"
    assert adapter_bytes(folder / "untracked") == adapter_bytes(folder / "tracked")
    for name in ("recipe.yaml", "history.jsonl", "predictions.jsonl"):
        assert (folder / "untracked" / name).read_bytes() == (folder / "tracked" / name).read_bytes()
    assert "report_to" not in (folder / "tracked/recipe.yaml").read_text()


def test_a_package_that_is_not_there_is_said_before_anything_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("pomona.runs.trackers.find_spec", lambda name: None)
    for name in TRACKERS:
        with pytest.raises(MissingPackageError, match=f"report_to: needs the package {name} .* pip install"):
            check_trackers([name])
    done = call(folder, "adapt", "plain.yaml", "-o", "none", "--set", "report_to=[wandb]")
    assert done.code == 2
    assert "pip install 'pomona[wandb]'" in done.errors[0]
    assert not (folder / "none").exists()
    checked = call(folder, "check", "tracked.yaml", "--no-trial")
    assert checked.code == 2
    with pytest.raises(InputError, match=r"report_to"), inside(folder):
        pomona.read_recipe("plain.yaml", overrides=["report_to=[wendb]"])


class _Calls:
    """Stands for a tracker's module: keeps the calls, and gives itself back."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name == "summary":
            return self

        def call(*arguments: Any, **named: Any) -> _Calls:
            self.calls.append((name, arguments, named))
            return self

        return call


EVENTS: list[dict[str, object]] = [
    {"kind": "begin", "name": "a run", "folder": "f", "recipe": {"seed": 0}},
    {"kind": "step", "system": "pomona", "step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "prune_ratio": None},
    {"kind": "scores", "system": "pomona", "label": "Pomona", "rouge_l": 0.5},
    {"kind": "report", "path": "f/report.html"},
    {"kind": "end", "status": "failed"},
]
FIGURES = {"pomona/loss": 2.0, "pomona/learning_rate": 0.1}
SAID: dict[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {
    "trackio": [
        ("init", (), {"project": "pomona", "name": "a run", "config": {"seed": 0}}),
        ("log", (FIGURES,), {"step": 1}),
        ("log", ({"scores/pomona/rouge_l": 0.5},), {}),
        ("save", ("f/report.html",), {}),
        ("finish", (), {}),
    ],
    "wandb": [
        ("init", (), {"project": "pomona", "name": "a run", "dir": "f", "config": {"seed": 0}}),
        ("define_metric", ("pomona/*",), {"step_metric": "pomona/step"}),
        ("log", ({**FIGURES, "pomona/step": 1},), {}),
        ("update", ({"scores/pomona/rouge_l": 0.5},), {}),
        ("Artifact", ("report-a-run",), {"type": "report"}),
        ("add_file", ("f/report.html",), {}),
        ("finish", (), {"exit_code": 1}),
    ],
    "mlflow": [
        ("set_experiment", ("pomona",), {}),
        ("start_run", (), {"run_name": "a run"}),
        ("log_dict", ({"seed": 0}, "recipe.yaml"), {}),
        ("log_metrics", (FIGURES,), {"step": 1}),
        ("log_metrics", ({"scores/pomona/rouge_l": 0.5},), {}),
        ("log_artifact", ("f/report.html",), {}),
        ("end_run", ("FAILED",), {}),
    ],
}


@pytest.mark.parametrize("name", SAID)
def test_what_other_trackers_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = _Calls()
    monkeypatch.setitem(sys.modules, name, module)
    (tracker,) = trackers([name])
    tracker.on_event(EVENTS[1])  # before the run began: nothing
    for event in EVENTS:
        tracker.on_event(event)
    assert [one for one in module.calls if one[0] != "log_artifact" or name == "mlflow"] == SAID[name]


def test_no_callback_hears_after_its_failure() -> None:
    broken, said = Broken(), []
    several = Callbacks([broken], said.append)
    for event in EVENTS:
        several.on_event(event)
    assert (broken.heard, len(said)) == (3, 1)
