"""Wrong input at the front door: exit 2, one line that begins with `error:`, nothing trained and nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
import torch
from tests.end_to_end.setting import COMMAND, Outcome, call, environment, listing, make_setting, process, rows, write_rows
from tests.tiny import tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, Factors, write_adapter

Spoil = Callable[[Path], object]


def nothing(folder: Path) -> None:
    """The input stands as it is."""


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content)


def broken_line(folder: Path) -> None:
    with (folder / "data.jsonl").open("a") as file:
        file.write('{"document": "x", "summ\n')


def overlap(folder: Path) -> None:
    """The test file holds the documents of the train file."""
    write_rows(folder / "test.jsonl", [{**row, "id": f"test-{row['id']}", "document": row["document"].upper()} for row in rows(40)])


def long_answer(folder: Path) -> None:
    write_rows(folder / "test.jsonl", [*rows(5, first=60), {"document": "d", "summary": "x " * 600}])


def changed_alpha(change: Callable[[Adapter], Mapping[str, Factors]]) -> Spoil:
    def spoil(folder: Path) -> None:
        adapter = tiny_adapter(tiny_backbone(), seed=1)
        write_adapter(Adapter(change(adapter), "elsewhere"), folder / "adapters" / "alpha", force=True)

    return spoil


def with_nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "adapters" / "alpha" / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[3] = float("nan")
    save_file(tensors, file)


def pickled(folder: Path) -> None:
    alpha = folder / "adapters" / "alpha"
    (alpha / "adapter_model.safetensors").unlink()
    torch.save({}, alpha / "adapter_model.bin")


def occupied(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "notes.txt").write_text("mine")


def deeper(adapter: Adapter) -> Mapping[str, Factors]:
    return {module.replace("layers.1", "layers.7"): adapter[module] for module in adapter}


def wider(adapter: Adapter) -> Mapping[str, Factors]:
    return {module: Factors(torch.cat([adapter[module].A] * 2, dim=1), adapter[module].B) for module in adapter}


def higher_rank(adapter: Adapter) -> Mapping[str, Factors]:
    return {
        module: Factors(torch.cat([one.A] * 2), torch.cat([one.B] * 2, dim=1)) for module in adapter for one in [adapter[module]]
    }


ADAPT = ("adapt", "small.yaml", "--output", "run")


@dataclass(frozen=True)
class Case:
    """How the input is spoilt, the command, and parts of the line that must come."""

    parts: tuple[str, ...]
    command: tuple[str, ...] = ADAPT
    spoil: Spoil = field(default=nothing)


def adapt(*parts: str, set: tuple[str, ...] = (), spoil: Spoil = nothing) -> Case:
    return Case(parts, (*ADAPT, *(word for one in set for word in ("--set", one))), spoil)


CASES: dict[str, Case] = {
    "no such verb": Case(("No such command 'adpt'", "pomona --help"), ("adpt", "small.yaml")),
    "no such option": Case(("No such option: --sed", "pomona adapt --help"), ("adapt", "small.yaml", "--sed", "1")),
    "no recipe given": Case(("Missing argument",), ("adapt",)),
    "an option's value is no number": Case(("--rank", "integer"), ("merge", "adapters/alpha", "-o", "m", "--rank", "many")),
    "no such recipe": Case(("nowhere.yaml: the recipe cannot be read",), ("adapt", "nowhere.yaml")),
    "recipe is not YAML": adapt("small.yaml:2: not YAML", spoil=text("small.yaml", "name: x\n  data: [\n")),
    "recipe is a list": adapt("small.yaml: a recipe is a mapping", spoil=text("small.yaml", "- 1\n")),
    "recipe is empty": adapt("small.yaml: a recipe is a mapping", spoil=text("small.yaml", "")),
    "recipe is not text": adapt("small.yaml", spoil=lambda folder: (folder / "small.yaml").write_bytes(b"\xff\xfe\x00")),
    "unknown key": adapt("small.yaml: tuning.epoch: unknown key", "Did you mean 'epochs'?", set=("tuning.epoch=2",)),
    "unknown component": adapt("no such controller (got 'grap')", "Did you mean 'grasp'?", set=("controller=grap",)),
    "wrong type": adapt("small.yaml: tuning.epochs", "'many'", set=("tuning.epochs=many",)),
    "no such data file": adapt("gone.jsonl: no such file", set=("data.train=gone.jsonl",)),
    "broken JSON": adapt("data.jsonl:41: not JSON", spoil=broken_line),
    "a field is missing": adapt("data.jsonl:1: summary", spoil=text("data.jsonl", '{"document": "x"}\n')),
    "no rows": adapt("data.jsonl: has no rows", spoil=text("data.jsonl", "\n\n")),
    "empty split": adapt("test: the test split would be empty (got 0)", set=("splits.test=0",)),
    "too few rows": adapt("too few examples: train needs 99", set=("splits.train=99",)),
    "test rows from the train file": adapt(
        "and test share a document", set=("data.test=test.jsonl", "splits.train=1", "splits.test=40"), spoil=overlap
    ),
    "an answer that does not fit": adapt(
        "its completion has", "max_tokens", set=("data.test=test.jsonl", "splits.test=6"), spoil=long_answer
    ),
    "no such adapter": adapt("adapters/none: no such folder", set=("sources.0.adapter=adapters/none",)),
    "adapter of another base": adapt("adapters/alpha: model.layers.7", "no such linear module", spoil=changed_alpha(deeper)),
    "adapter of another shape": adapt("adapters/alpha: model.layers.0", "32 x 64", "32 x 32", spoil=changed_alpha(wider)),
    "NaN in an adapter": adapt("adapters/alpha", "NaN", spoil=with_nan),
    "a pickle": adapt("adapters/alpha/adapter_model.bin: is a pickle", "never opened", spoil=pickled),
    "no such model folder": adapt("no such model folder (got './none')", set=("model=./none",)),
    "hub id without a network": adapt("HF_HUB_OFFLINE", "someone/something", set=("model=someone/something",)),
    "model folder without a model": adapt("the model cannot be loaded", set=("model=adapters",)),
    "no such device": adapt("no such device", set=("device=abacus",)),
    "no such module to train": adapt("lora_moduls", set=("lora.target_modules=[lora_moduls]",)),
    "output exists": adapt("run: already exists", "--resume", spoil=occupied),
    "output is a file": adapt("run: already exists", spoil=text("run", "")),
    "output below a file": Case(("cannot be written",), ("adapt", "small.yaml", "--output", "data.jsonl/run")),
    "nothing to resume": Case(("run: no run to resume",), (*ADAPT, "--resume")),
    "dry run of a bad adapter": Case(("NaN",), (*ADAPT, "--dry-run"), with_nan),
    "train-adapter: output exists": Case(
        ("adapters/alpha: already exists", "--force"), ("train-adapter", "source.yaml", "-o", "adapters/alpha")
    ),
    "train-adapter: not an adapter folder": Case(
        ("model: is not an adapter folder",), ("train-adapter", "source.yaml", "-o", "model", "--force")
    ),
    "train-adapter: too few examples": Case(
        ("examples: only 12",), ("train-adapter", "source.yaml", "-o", "new", "--set", "examples=13")
    ),
    "train-adapter: a key of the other kind of recipe": Case(
        ("sources: unknown key",), ("train-adapter", "source.yaml", "-o", "new", "--set", "sources=[]")
    ),
    "merge: no such method": Case(
        ("no such merge method (got 'svdd')", "'svd'"), ("merge", "adapters/alpha", "-o", "m", "--method", "svdd")
    ),
    "merge: weights": Case(("2 weights",), ("merge", "adapters/alpha", "adapters/beta", "-o", "m", "--weights", "1")),
    "evaluate: neither recipe nor data": Case(("give either a recipe or --data",), ("evaluate",)),
    "evaluate: bad adapter": Case(("NaN",), ("evaluate", "small.yaml", "-a", "adapters/alpha"), with_nan),
    "evaluate: no such task": Case(("no such task", "summarization"), ("evaluate", "--data", "data.jsonl", "--task", "summary")),
    "generate: no such adapter": Case(("none: no such folder",), ("generate", "x", "--model", "model", "-a", "none")),
    "inspect: not an adapter": Case(("model: is a whole model and no adapter",), ("inspect", "model")),
    "report: no run": Case(("adapters",), ("report", "adapters")),
    "demo: bad override": Case(("tuning.epoch: unknown key",), ("demo", "--set", "tuning.epoch=1")),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_setting(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A sound setting of the test's own, to spoil."""
    return shutil.copytree(sound, tmp_path / "setting")


def assert_refused(outcome: Outcome, parts: tuple[str, ...]) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    # Lines above it say which stages went well; none of them is of training.
    *stages, last = outcome.err.splitlines()
    assert outcome.errors == [last]
    assert all(line.startswith(("reading data", "loading the model", "warning: ")) for line in stages), stages
    assert len(last) < 700
    for part in parts:
        assert part in last, last


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line_before_anything_is_done(name: str, folder: Path) -> None:
    case = CASES[name]
    case.spoil(folder)
    before = listing(folder)
    with mock.patch("pomona.tuning.fit.train", side_effect=AssertionError("trained")):
        outcome = call(folder, *case.command)
    assert_refused(outcome, case.parts)
    assert listing(folder) == before


def test_sources_that_the_chosen_method_cannot_merge_are_found_before_training(folder: Path) -> None:
    """Factor by factor, ranks must be equal; the plan tries that on small factors, so nothing is trained or written."""
    changed_alpha(higher_rank)(folder)
    with mock.patch("pomona.tuning.fit.train", side_effect=AssertionError("trained")):
        outcome = call(folder, *ADAPT, "--set", "merge={method: ties, parameters: {'on': factors}}")
    assert_refused(outcome, ("on=factors requires factors of equal ranks",))
    assert not (folder / "run").exists()


def test_check_tells_every_finding_and_exits_with_two(folder: Path) -> None:
    with_nan(folder)
    outcome = call(folder, "check", "adapters/alpha", "adapters/beta", "small.yaml")
    assert outcome.code == 2
    assert [line.partition(":")[0] for line in outcome.out.splitlines()] == ["error", "ok", "error"]
    assert outcome.err == ""


def test_as_a_process(folder: Path) -> None:
    """The whole way, with nothing of this process in between."""
    with_nan(folder)
    before = listing(folder)
    started = time.monotonic()
    outcome = process(folder, *ADAPT)
    assert_refused(outcome, ("adapters/alpha", "NaN"))
    assert listing(folder) == before
    assert time.monotonic() - started < 60


def test_debug_shows_the_traceback(folder: Path) -> None:
    outcome = process(folder, "--debug", "adapt", "nowhere.yaml")
    assert outcome.code == 2
    assert outcome.err.startswith("Traceback")
    *_, raised, told = outcome.err.splitlines()
    assert raised.startswith("pomona.errors.InputError: nowhere.yaml: the recipe cannot be read")
    assert told.startswith("error: nowhere.yaml: the recipe cannot be read")


def test_an_unforeseen_error_is_one_line_too(folder: Path) -> None:
    with mock.patch("pomona.adapters.measure.describe_adapter", side_effect=RuntimeError("a\nbug")):
        outcome = call(folder, "inspect", "adapters/alpha")
    assert outcome == Outcome(1, "", "error: RuntimeError: a bug (--debug shows where)\n")


def test_help_is_quick_and_light(folder: Path) -> None:
    heavy = ["torch", "transformers", "numpy", "pydantic", "yaml"]
    code = (
        "import sys, time; started = time.perf_counter(); sys.argv = ['pomona', '--help']\n"
        "from pomona.cli.main import main\n"
        "try: main()\n"
        f"finally: print(sorted(set({heavy}) & sys.modules.keys()), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(folder))
    assert shown.stderr == "[]\n"
    for verb in ("demo", "adapt", "train-adapter", "merge", "evaluate", "generate", "inspect", "check", "report", "env", "list"):
        assert f"\n  {verb} " in shown.stdout
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True, env=environment(folder))
        taken.append(time.perf_counter() - started)
    assert min(taken) < 0.5
