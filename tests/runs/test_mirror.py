"""Local files in place of data sets of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pomona.errors import InputError
from pomona.runs.mirror import VARIABLE, mirrored
from pomona.runs.recipe import Data

TABLE = {
    "hub:a/one@train": {"file": "one/train.jsonl", "columns": {"document": "text"}},
    "hub:a/one@test": {"file": "one/test.jsonl", "columns": {"document": "text"}},
    "hub:a/pool": {"file": "pool.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
    "hub:a/more": {"file": "more.jsonl"},
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mirror.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    monkeypatch.setenv(VARIABLE, str(path))
    return tmp_path


def within(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """`data` with files in the folder."""
    placed: dict[str, Any] = {}
    for split in ("train", "dev", "test"):
        files = data.get(split)
        if files is not None:
            placed[split] = str(folder / files) if isinstance(files, str) else [str(folder / file) for file in files]
    return data | placed


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"train": "hub:a/one@train", "test": "hub:a/one@test", "columns": {"document": "abstract"}, "near_duplicates": "allow"},
            {"train": "one/train.jsonl", "test": "one/test.jsonl", "columns": {"document": "text"}, "near_duplicates": "allow"},
        ),
        ({"train": "hub:a/pool"}, {"train": "pool.jsonl", "dev": "dev.jsonl", "test": "test.jsonl", "columns": {}}),
        ({"train": ["hub:a/pool", "hub:a/more"]}, {"train": ["pool.jsonl", "more.jsonl"], "columns": {}}),
        ({"train": "hub:a/pool", "test": "hub:a/more"}, {"train": "pool.jsonl", "test": "more.jsonl", "columns": {}}),
    ],
)
def test_files_stand_in_for_the_hub(table: Path, given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert mirrored(given) == within(table, expected)
    assert Data(**given) == Data(**within(table, expected))


@pytest.mark.parametrize(
    "given", [{"train": "hub:a/other"}, {"train": ["hub:a/pool", "hub:a/other"]}, {"train": "rows.jsonl"}, {"docstrings": "stdlib"}]
)
def test_what_the_table_lacks_stays(table: Path, given: dict[str, Any]) -> None:
    assert mirrored(given) == given
    assert Data(**given) == Data(**given)


def test_without_a_table_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert mirrored({"train": "hub:a/pool"}) == {"train": "hub:a/pool"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "cannot be read: No such file"),
        ("- a\n", "cannot be read"),
        ("hub:a/pool: {path: x.jsonl}\n", "cannot be read"),
        ("hub:a/pool: [\n", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read(table: Path, text: str | None, part: str) -> None:
    if text is None:
        (table / "mirror.yaml").unlink()
    else:
        (table / "mirror.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"mirror\.yaml: .*{part}.*unset POMONA_MIRROR"):
        mirrored({"train": "hub:a/pool"})


def test_stand_ins_of_one_recipe_have_the_same_columns(table: Path) -> None:
    with pytest.raises(InputError, match="different columns"):
        mirrored({"train": ["hub:a/pool", "hub:a/one@train"]})
