"""Adapters of real architectures through every verb, with PEFT as the judge.

The whole table is made by `python -m benchmarks architectures`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.architectures import EXACT, VERBS, cells

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
ADAPTED = ("llama", "gpt2")
"""On these the main job is run; the others' live model is seen by `generate`."""


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_lora_is_exact_with_every_verb(name: str, tmp_path: Path) -> None:
    verbs = {verb: run for verb, run in VERBS.items() if verb != "adapt" or name in ADAPTED}
    found = cells(name, "all linear", tmp_path, verbs)
    assert {verb: cell.result for verb, cell in found.items()} == dict.fromkeys(verbs, EXACT), found
