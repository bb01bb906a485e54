"""Each script in `examples/` runs, on a tiny model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from tests.end_to_end.setting import inside, make_setting, recipe, write_recipe

import pomona

EXAMPLES = Path(pomona.__path__[0]).parents[1] / "examples"
CALLS: dict[str, tuple[list[str], str]] = {
    "adapt": (["quick.yaml", "out"], "the adapter is in out/adapter, the report is out/report.html"),
    "evaluate": (["quick.yaml", "adapters/alpha", "adapters/beta"], "adapters/beta - adapters/alpha: rouge_l "),
    "merge_adapters": (["adapters/alpha", "adapters/beta", "merged"], "adapters/alpha and adapters/beta: cosine "),
    "recipe_in_python": (["data.jsonl", "model", "ratios", "adapters/alpha"], "ratio-0.5: sparsity 0.5"),
    "train_and_generate": (["source.yaml", "gamma", "amber birch"], "without the adapter: "),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("examples"))
    quick = {
        "tuning": {"epochs": 1, "batch_size": 8},
        "controller": {"name": "fixed", "prune_ratio": 0.25},
        "evaluation": {"baselines": ["zero_shot"], "draws": 100},
    }
    write_recipe(folder / "quick.yaml", recipe(name="quick", **quick))
    return folder


def test_every_script_is_called_here() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_script_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, told = CALLS[name]
    script = EXAMPLES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with inside(folder):
        runpy.run_path(str(script), run_name="__main__")
    assert told in capsys.readouterr().out
