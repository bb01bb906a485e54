"""Work that is stopped says how to go on, and the command that it names does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest import mock

import pytest
from tests.end_to_end.setting import Outcome, call, make_setting, recipe, write_recipe

from pomona.runs.read_recipe import read_recipe
from pomona.runs.recipe import Recipe

SENT = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGHUP: (129, "hung up")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("interrupted"))
    write_recipe(folder / "a recipe.yaml", recipe(name="run", evaluation={"baselines": ["zero_shot"], "draws": 200}))
    write_recipe(
        folder / "exp.yaml", {"name": "exp", "recipe": "a recipe.yaml", "seeds": [0], "systems": {"b": {"baseline": "svd"}}}
    )
    return folder


def stopped(folder: Path, sent: signal.Signals, where: str, *arguments: str) -> Outcome:
    """The command, sent a signal as soon as it calls `where`."""

    def send(*_: object, **__: object) -> None:
        os.kill(os.getpid(), sent)

    before = signal.getsignal(signal.SIGTERM)
    with mock.patch(where, side_effect=send):
        outcome = call(folder, *arguments)
    assert signal.getsignal(signal.SIGTERM) is before
    code, how = SENT[sent]
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.splitlines()[-1].startswith(f"{how}; ")
    return outcome


FIT = "pomona.runs.system_trainer.fit"
EPOCHS = ("--set", "tuning.epochs=1")


def test_a_run_names_the_command_that_goes_on_and_that_one_does(folder: Path) -> None:
    outcome = stopped(folder, signal.SIGINT, FIT, "adapt", "a recipe.yaml", *EPOCHS)
    typed = "adapt 'a recipe.yaml' --set tuning.epochs=1 --output runs/run --resume"
    assert outcome.err.splitlines()[-1] == f"interrupted; go on with: pomona {typed}"
    outcome = stopped(folder, signal.SIGTERM, FIT, "adapt", "a recipe.yaml", *EPOCHS, "--output", "runs/run", "--resume")
    assert outcome.err.splitlines()[-1] == f"terminated; go on with: pomona {typed}"
    assert call(folder, "adapt", "a recipe.yaml", *EPOCHS, "--output", "runs/run", "--resume").code == 0


def test_a_folder_that_was_named_is_not_named_twice(folder: Path) -> None:
    outcome = stopped(folder, signal.SIGTERM, FIT, "--debug", "adapt", "a recipe.yaml", "-o", "out put", "--json")
    assert outcome.err.splitlines()[-1] == "terminated; go on with: pomona adapt 'a recipe.yaml' -o 'out put' --json --resume"


def test_an_experiment_and_the_demo_go_on_too(folder: Path) -> None:
    outcome = stopped(folder, signal.SIGINT, "pomona.runs.store.RunStore.save_answers", "experiment", "exp.yaml")
    assert outcome.err.splitlines()[-1] == "interrupted; go on with: pomona experiment exp.yaml --output runs/exp --resume"
    with mock.patch("pomona.runs.demo.demo_recipe", return_value=read_recipe(folder / "a recipe.yaml", Recipe)):
        outcome = stopped(folder, signal.SIGINT, FIT, "demo")
    assert outcome.err.splitlines()[-1] == "interrupted; go on with: pomona demo --output runs/demo --resume"


@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("pomona.runs.shared_work.load_backbone", ("adapt", "a recipe.yaml", "--output", "new")),
        ("pomona.runs.train_adapter.train_plain", ("train-adapter", "source.yaml", "--output", "new")),
        ("pomona.merging.merge", ("merge", "adapters/alpha", "adapters/beta", "--output", "new")),
        ("pomona.backbone.load.load_backbone", ("evaluate", "--data", "source.jsonl", "--output", "new", "--model", "model")),
        ("pomona.runs.adapt.prepare", ("adapt", "a recipe.yaml", "--dry-run", "--output", "new")),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else "",
)
@pytest.mark.parametrize("sent", SENT, ids=lambda one: one.name)
def test_of_other_work_nothing_is_left(folder: Path, sent: signal.Signals, where: str, arguments: tuple[str, ...]) -> None:
    outcome = stopped(folder, sent, where, *arguments)
    how = SENT[sent][1]
    typed = " ".join(arguments).replace("a recipe.yaml", "'a recipe.yaml'")
    assert outcome.err.splitlines()[-1] == f"{how}; nothing of it is kept; start again with: pomona {typed}"
    assert not (folder / "new").exists()
