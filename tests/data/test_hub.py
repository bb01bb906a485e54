from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from pomona.data import Row, read_rows
from pomona.errors import InputError, MissingPackageError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub has one data set, owner/name, with two splits; what was asked for is recorded."""
    folder = tmp_path / "there"
    folder.mkdir()
    for split, texts in {"train": ["x", "y", "z"], "test": ["t"]}.items():
        lines = (json.dumps({"document": text, "answers": [{"text": text.upper()}]}) for text in texts)
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    asked: list[str] = []
    real: Callable[..., object] = datasets.load_dataset

    def load(address: str, config: str | None, *, split: str) -> object:
        asked.append(address)
        return real(str(folder), config, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_data_set_of_the_hub_is_read_split_by_split(hub: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    rows = read_rows("hub:owner/name", {"answers": "answers.text"})
    assert rows == [Row(n, {"document": one, "answers": [one.upper()]}) for n, one in enumerate("xyz", start=1)]
    assert [row.fields["document"] for row in read_rows("hub:owner/name@test")] == ["t"]
    assert [row.fields["document"] for row in read_rows(Path("hub:owner/name:default@train[1:]"))] == ["y", "z"]
    # With this address, and only with it, a local folder called owner/name is not looked at.
    assert hub == ["hf://datasets/owner/name"] * 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [True, False])
def test_the_library_is_as_loud_as_before_afterwards(hub: list[str], shown: bool) -> None:
    from huggingface_hub import utils

    logger = logging.getLogger("huggingface_hub")

    def loudness() -> tuple[bool, bool, int]:
        return not datasets.are_progress_bars_disabled(), not utils.are_progress_bars_disabled(), logger.level

    for library in (datasets, utils):
        (library.enable_progress_bars if shown else library.disable_progress_bars)()
    try:
        before = loudness()
        assert before[:2] == (shown, shown)
        read_rows("hub:owner/name")
        assert loudness() == before
    finally:
        datasets.enable_progress_bars()
        utils.enable_progress_bars()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hub:owner/name:large", "BuilderConfig 'large' not found. Available: ['default']."),
        ("hub:owner/name@dev", "Unknown split \"dev\". Should be one of ['train', 'test']."),
        ("hub:owner/name@train[", 'Unrecognized instruction format: train[.'),
    ],
)  # fmt: skip
def test_an_unknown_configuration_or_split_is_one_line(hub: list[str], source: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_rows(source)
    message = str(caught.value)
    assert message.startswith(f"{source}: cannot be read from the hub: {reason} Check the name, the configuration (:config) and")
    assert "\n" not in message
    assert hub == ["hf://datasets/owner/name"]


def test_a_data_set_that_is_a_script_is_read_from_the_copy_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy has a folder for each configuration; other errors are not taken for this one."""
    real: Callable[..., object] = datasets.load_dataset
    for config in ("ar", "default"):
        (tmp_path / config / "test").mkdir(parents=True)
        (tmp_path / config / "test" / "0000.jsonl").write_text(json.dumps({"document": config}))
    problem: Exception = RuntimeError("Dataset scripts are no longer supported, but found name.py")

    def load(address: str, config: str | None = None, *, split: str, revision: str = "main", data_dir: str = "") -> object:
        assert address == "hf://datasets/owner/name"
        if revision == "main":
            raise problem
        assert revision == "refs/convert/parquet"
        return real(str(tmp_path), config, split=split, data_dir=data_dir, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [row.fields for row in read_rows("hub:owner/name:ar@test")] == [{"document": "ar"}]
    problem = ValueError("Couldn't find cache for owner/name for config 'default'")
    assert [row.fields for row in read_rows("hub:owner/name@test")] == [{"document": "default"}]
    with pytest.raises(InputError, match="cannot be read from the hub"):
        read_rows("hub:owner/name:zh@test")
    problem = RuntimeError("another error")
    with pytest.raises(InputError, match="another error"):
        read_rows("hub:owner/name:ar@test")


def test_without_a_network_the_hub_is_not_reached() -> None:
    """The library itself: the tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(
        InputError, match=r"^hub:pomona-nobody/nothing:config@test: cannot be read from the hub: .*HF_HUB_OFFLINE"
    ) as caught:
        read_rows("hub:pomona-nobody/nothing:config@test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["hub:", "hub:name", "hub:a/b/c", "hub:a/b@", "hub:a/b:", "hub:a/b:@test", "hub:../b/c", "hub:/b"]
)
def test_what_is_no_name_of_a_data_set_is_refused(hub: list[str], source: str) -> None:
    with pytest.raises(InputError, match=r"^not a data set of the hub .* Write hub:owner/name"):
        read_rows(source)
    assert hub == []


def test_without_datasets_the_extra_is_named(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datasets" else find(name))
    with pytest.raises(
        MissingPackageError, match=r'need datasets, which is not installed\. Install it with `pip install "pomona\[data\]"'
    ):
        read_rows("hub:owner/name")
    assert hub == []
