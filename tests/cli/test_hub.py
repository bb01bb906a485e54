"""Every verb that takes an adapter's folder takes `hub:owner/name`, too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from tests.end_to_end.setting import COMMAND, call, environment, make_setting, recipe, write_recipe
from tests.support.fake_hub import COMMIT, FakeHub, fake_hub

from pomona.adapters import read_adapter

ALPHA = "hub:me/adapters/alpha@main"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_setting(tmp_path_factory.mktemp("hub"))
    sources = [{"name": "alpha", "adapter": ALPHA}, {"name": "beta", "adapter": "adapters/beta"}]
    changes = {"tuning": {"epochs": 1, "batch_size": 4}, "evaluation": {"baselines": [], "draws": 100}}
    write_recipe(
        folder / "hub.yaml", recipe(name="hub", sources=sources, controller={"name": "fixed", "prune_ratio": 0.5}, **changes)
    )
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[FakeHub]:
    files = {path.relative_to(folder / "adapters").as_posix(): path.read_bytes() for path in (folder / "adapters").glob("*/*")}
    with fake_hub({"me/adapters": {COMMIT: files}}) as hub:
        yield hub


@pytest.fixture
def reachable(served: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", served.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub_cache"))


def test_as_a_process_with_the_hub_s_own_settings(served: FakeHub, folder: Path) -> None:
    settings = {"HF_ENDPOINT": served.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home")}
    ours = environment(folder) | settings
    command = [*COMMAND, "merge", ALPHA, "adapters/beta", "-o", "as_process", "--json"]
    done = subprocess.run(command, cwd=folder, env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["sources"], found["commits"]) == ([ALPHA, "adapters/beta"], {ALPHA: COMMIT})
    assert list((folder / "home" / "hub").rglob(f"snapshots/{COMMIT}/alpha/adapter_model.safetensors"))
    assert call(folder, "merge", "adapters/alpha", "adapters/beta", "-o", "as_folders").code == 0
    assert read_adapter(folder / "as_process").fingerprint() == read_adapter(folder / "as_folders").fingerprint()


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "{}", "adapters/beta"),
        ("check", "{}", "adapters/beta"),
        ("export", "{}", "--for", "vllm", "-o", "out", "--force"),
        ("generate", "amber", "--adapter", "{}", "--model", "model", "--max-new-tokens", "3"),
        ("evaluate", "--data", "source.jsonl", "--adapter", "{}", "--model", "model", "--set", "max_new_tokens=3"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_verb_says_of_it_what_it_says_of_the_folder(
    folder: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # tables break no name
    given = [call(folder, *(one.format(name) for one in arguments)) for name in (ALPHA, "adapters/alpha")]
    assert given[0].code == given[1].code == 0, given[0].err
    shown = [" ".join(one.out.replace(ALPHA, "adapters/alpha").split()) for one in given]
    assert shown[0] == shown[1]
    assert "hub_cache" not in given[0].out + given[0].err


@pytest.mark.usefixtures("reachable")
def test_a_run_records_the_commit(folder: Path) -> None:
    done = call(folder, "adapt", "hub.yaml", "--json")
    assert done.code == 0, done.err
    sources = json.loads(done.out)["sources"]
    assert [one["origin"] for one in sources] == [f"{ALPHA} (commit {COMMIT})", "adapters/beta"]
    assert sources[0]["fingerprint"] == read_adapter(folder / "adapters/alpha").fingerprint()


@pytest.mark.usefixtures("reachable")
def test_what_is_not_there_is_one_line(folder: Path) -> None:
    done = call(folder, "inspect", "hub:me/none")
    assert done.code == 2
    assert done.err == (
        "error: hub:me/none: no such repository on the hub. Check owner and name; for a private one set HF_TOKEN.\n"
    )
