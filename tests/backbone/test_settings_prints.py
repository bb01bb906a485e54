"""Fingerprints of a model's settings: each file of the folder moves its own, and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import save_tiny_model

from pomona.backbone.load import load_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


def rope(folder: Path) -> None:
    changed(folder / "config.json", lambda config: config.update(rms_norm_eps=1e-3))


def template(folder: Path) -> None:
    changed(folder / "tokenizer_config.json", lambda config: config.update(chat_template="{{ messages[0]['content'] }}!"))


def tokens(folder: Path) -> None:
    changed(folder / "tokenizer.json", lambda content: content.update(normalizer={"type": "Lowercase"}))


def ends(folder: Path) -> None:
    changed(folder / "generation_config.json", lambda config: config.update(eos_token_id=[2, 5]))


@pytest.mark.parametrize(
    ("change", "moved"),
    [(rope, "config"), (template, "tokenizer"), (tokens, "tokenizer"), (ends, "generation config")],
    ids=["eps", "chat template", "normalizer", "end tokens"],
)
def test_each_file_moves_its_own(folder: Path, tmp_path: Path, change: Callable[[Path], None], moved: str) -> None:
    before = load_backbone(str(folder), device="cpu").fingerprints
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    assert load_backbone(str(other), device="cpu").fingerprints == before  # another place, the same content
    change(other)
    after = load_backbone(str(other), device="cpu").fingerprints
    assert {name for name in before if before[name] != after[name]} == {moved}


def test_use_moves_none(folder: Path) -> None:
    used, fresh = (load_backbone(str(folder), device="cpu") for _ in range(2))
    used.tokenizer(["amber birch", "amber"], padding=True, truncation=True, max_length=1)
    assert used.fingerprints == fresh.fingerprints
    assert set(used.fingerprints) == {"model", "config", "tokenizer", "generation config"}
