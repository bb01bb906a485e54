"""Adapters of real architectures through every verb, with PEFT as the judge.

The whole table is made by `python -m benchmarks architectures`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.architectures import EXACT, FEATURES, PAGE, REFUSED, VERBS, cells
from benchmarks.tiny_architectures import ARCHITECTURES

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own, about old names and models of this size

PLAIN = (
    "llama",
    "llama, tied",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3 text",
    "phi3",
    "granite",
    "cohere",
    "gpt2",
    "gpt-neo",
    "gpt-neox",
    "opt",
    "bloom",
    "falcon",
)
ADAPTED = ("llama", "gpt2", "opt")
"""On these the main job is run; the others' live model is seen by `generate`."""
LIVE = {"generate", "adapt"}
ALL = set(VERBS)
# (architecture, kind of adapter) -> the verbs that refuse it; all others are exact.
OTHERS: dict[tuple[str, str], set[str]] = {
    ("gpt2", "varied"): set(),
    ("llama, tied", "embedding, head"): LIVE,
    ("llama", "whole head"): {"check", "merge", *LIVE},
    ("gpt2", "DoRA"): ALL - {"convert"},
    ("gemma3", "old names"): set(),
    ("llava", "old names"): LIVE,
    ("qwen2.5-vl", "old names"): LIVE,
    ("mixtral", "single experts"): LIVE,
    ("qwen3-moe", "single experts"): LIVE,
    ("gpt-oss", "fused experts"): LIVE,
    ("t5", "all linear"): LIVE,
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_lora_is_exact_with_every_verb(name: str, tmp_path: Path) -> None:
    verbs = {verb: run for verb, run in VERBS.items() if verb != "adapt" or name in ADAPTED}
    found = cells(name, "all linear", tmp_path, verbs)
    assert {verb: cell.result for verb, cell in found.items()} == dict.fromkeys(verbs, EXACT), found


@pytest.mark.parametrize(("name", "feature"), OTHERS)
def test_any_other_adapter_is_exact_or_refused_with_the_reason(name: str, feature: str, tmp_path: Path) -> None:
    verbs = {verb: run for verb, run in VERBS.items() if verb != "adapt" or "adapt" in OTHERS[name, feature]}
    found = cells(name, feature, tmp_path, verbs)
    expected = {verb: REFUSED if verb in OTHERS[name, feature] else EXACT for verb in verbs}
    assert {verb: cell.result for verb, cell in found.items()} == expected, found
    assert all(cell.told.startswith("error: ") for cell in found.values() if cell.result == REFUSED), found


def test_the_page_has_every_architecture_and_adapter() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    shown = {(name, row[0].removeprefix("| ")) for row in rows[2:] for name in re.split(r"; ", row[1])}
    assert shown == {
        (name, feature) for feature, kind in FEATURES.items() for name in ARCHITECTURES if kind.has(ARCHITECTURES[name])
    }
    assert not any("WRONG" in cell for row in rows for cell in row)
