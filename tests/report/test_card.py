from __future__ import annotations

from typing import Any

import yaml

from pomona.report.card import model_card
from pomona.report.sentences import three_sentences
from pomona.runs.record import RunRecord


def parts(text: str) -> tuple[dict[str, Any], str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_is_the_hubs(record: RunRecord):
    front, _ = parts(model_card(record))
    assert front == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "model-merging", "pruning", "pomona"],
        "metrics": ["rouge", "bleu", "chrf"],
    }


def test_a_folder_is_no_base_model_of_the_hub(record: RunRecord):
    front, body = parts(model_card(record.model_copy(update={"model": "/models/smollm2"})))
    assert "base_model" not in front
    assert 'from_pretrained("/models/smollm2")' in body


def test_sentences_and_scores(record: RunRecord):
    _, body = parts(model_card(record))
    for sentence in three_sentences(record):
        assert sentence in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert rows[1].startswith("| --- | ---: | ---: |")
    assert len({line.count("|") for line in rows[:9]}) == 1
    assert rows[8].startswith("| **Pomona** | 27.1 (24.0 to 30.3) | +1.9 (−0.2 to 3.9) | 0.210 |")


def test_text_of_people_cannot_break_the_card(record: RunRecord):
    evil = "a|b\n# c <script>alert(1)</script> [x](javascript:1)"
    systems = {**record.systems, "svd": record.systems["svd"].model_copy(update={"label": evil})}
    _, body = parts(model_card(record.model_copy(update={"systems": systems, "name": evil})))
    assert "<script>" not in body
    row = next(line for line in body.splitlines() if line.startswith("| a"))
    assert row.startswith(r"| a\|b # c &lt;script&gt;alert(1)&lt;/script&gt; \[x\](javascript:1) |")
    assert "\n# c" not in body


def test_an_unfinished_run_has_a_card_without_scores(record: RunRecord):
    front, body = parts(
        model_card(record.model_copy(update={"status": "interrupted", "systems": {}, "metrics": {}, "sources": []}))
    )
    assert "metrics" not in front
    assert "## Scores" not in body
    assert "This run was interrupted" in body
