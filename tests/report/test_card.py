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
    (index,) = front.pop("model-index")
    (result,) = index["results"]
    assert result["metrics"][0] == {
        "type": "rouge",
        "name": "rouge_l (95 % interval 24.00 to 30.30, 100 examples)",
        "value": 27.1,
        "args": {"low": 24.0, "high": 30.3, "n": 100},
    }
    assert front == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "model-merging", "pruning", "pomona"],
        "metrics": ["rouge", "bleu", "chrf"],
    }


def test_a_folder_is_no_base_model_of_the_hub(record: RunRecord):
    front, body = parts(model_card(record.model_copy(update={"model": "/models/smollm2"})))
    assert "base_model" not in front
    assert "base, adapter = '/models/smollm2', " in body


def test_sentences_and_scores(record: RunRecord):
    _, body = parts(model_card(record))
    for sentence in three_sentences(record):
        assert sentence in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert rows[1].startswith("| --- | ---: | ---: |")
    assert len({line.count("|") for line in rows[:9]}) == 1
    assert rows[8].startswith("| **Pomona** | 27.1 (24.0 to 30.3) | +1.9 (−0.2 to 3.9) | 1.000 (raw 0.210) |")
    assert "p: after Holm's correction for the 11 comparisons on this metric" in body


def test_signatures_say_what_computed_the_scores(record: RunRecord):
    path = {"bert_score": "bert-score|v:0.3.13|model:/a[b]`c"}
    _, body = parts(model_card(record.model_copy(update={"signatures": {**record.signatures, **path}})))
    listed = body.split("Signatures of the metrics:\n\n")[1].split("\n\n")[0].splitlines()
    assert len(listed) == 6
    assert listed[3] == r"- BLEU: nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:2.5.1"
    assert listed[5] == r"- BERTScore: bert-score\|v:0.3.13\|model:/a\[b\]\`c"


def test_an_alarming_result_is_not_passed_on_in_silence(record: RunRecord):
    assert "before you trust its scores" not in model_card(record)
    own = record.systems["pomona"]
    assert own.answers is not None
    alarming = own.model_copy(update={"answers": own.answers.model_copy(update={"empty_share": 0.25})})
    card = model_card(record.model_copy(update={"systems": {**record.systems, "pomona": alarming}}))
    assert "\n\nRead Pomona's answers before you trust its scores: 25.0% empty.\n\n" in card


def test_an_older_record_s_card(older: RunRecord):
    _, body = parts(model_card(older))
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert rows[8].startswith("| **Pomona** | 27.1 (24.0 to 30.3) | +1.9 (−0.2 to 3.9) | 0.210 |")
    assert "Signatures of the metrics" not in body
    assert "Holm" not in body


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
