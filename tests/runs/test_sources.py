"""What is found out about the sources before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_adapter, tiny_backbone

from pomona.adapters import write_adapter
from pomona.backbone.speed import Speed
from pomona.data import Example
from pomona.errors import InputError
from pomona.runs.read_recipe import parse_recipe
from pomona.runs.recipe import Lora, Recipe
from pomona.runs.sources import check_sources, is_cached, train_cached
from pomona.tuning.progress import Silent
from pomona.tuning.settings import Tuning


def check(folder: Path, weight: object, **changes: Any) -> tuple[str, ...]:
    """Check a source on the query and value projections, and a second one that `changes` describe."""
    backbone = tiny_backbone()
    write_adapter(tiny_adapter(backbone, seed=1), folder / "one")
    (folder / "two.jsonl").write_text('{"document": "amber birch", "summary": "amber"}\n')
    sources = [
        {"name": "one", "adapter": str(folder / "one"), "weight": weight},
        {"name": "two", "lora": {"target_modules": ["k_proj"]}, **changes},
    ]
    content = {"data": {"train": "x.jsonl"}, "sources": sources if changes else sources[:1]}
    return check_sources(parse_recipe(content, Recipe), backbone).warnings


def test_weights_that_cover_every_module_are_valid(tmp_path: Path) -> None:
    (about_one_source,) = check(tmp_path, [{"filter": "q_proj", "value": [0.0, 1.0]}, {"filter": "v_proj", "value": 2.0}])
    assert about_one_source.startswith("there is one source")


def test_a_module_of_an_adapter_that_no_filter_matches_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no entry's filter matches a module \(got 'model\.layers\.0\.self_attn\.v_proj'\)"):
        check(tmp_path, [{"filter": "q_proj", "value": 1.0}])


def test_the_modules_of_a_source_that_is_yet_to_be_trained_count_too(tmp_path: Path) -> None:
    data = {"data": {"train": str(tmp_path / "two.jsonl")}}
    with pytest.raises(InputError, match=r"no entry's filter matches a module \(got 'model\.layers\.0\.self_attn\.k_proj'\)"):
        check(tmp_path, [{"filter": "q_proj", "value": 1.0}, {"filter": "v_proj", "value": 2.0}], **data)


def test_a_source_trained_with_speed_ups_is_not_taken_where_they_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last bits come from them; a source trained without is kept apart."""
    monkeypatch.setenv("POMONA_CACHE", str(tmp_path))
    backbone = tiny_backbone()
    example = Example("one", "amber birch", "amber", ("amber",), "amber birch")
    folders = [
        train_cached(one, [example], Lora(target_modules=("q_proj",)), Tuning(epochs=1), seed=0, label="one", progress=Silent())
        for one in (backbone, replace(backbone, speed=Speed()), backbone)
    ]
    assert folders[0] == folders[2] != folders[1]


def test_a_cached_source_that_was_exchanged_or_damaged_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POMONA_CACHE", str(tmp_path))
    backbone, example = tiny_backbone(), Example("one", "amber birch", "amber", ("amber",), "amber birch")

    def train() -> Path:
        lora = Lora(target_modules=("q_proj",))
        return train_cached(backbone, [example], lora, Tuning(epochs=1), seed=0, label="one", progress=Silent())

    folder = train()
    tensors, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    good, written = tensors.read_bytes(), tensors.stat().st_mtime_ns
    assert train() == folder
    assert tensors.stat().st_mtime_ns == written  # it was found
    for damage in (
        lambda: tensors.write_bytes(good[:-1] + bytes([good[-1] ^ 1])),
        lambda: config.write_text(config.read_text() + " "),
        lambda: folder.with_name(f"{folder.name}.sha256").unlink(),
        lambda: (folder / "more").touch(),
    ):
        damage()
        assert not is_cached(folder)
        assert train() == folder
        assert tensors.read_bytes() == good
        assert is_cached(folder)
