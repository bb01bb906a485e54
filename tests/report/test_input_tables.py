"""Tables of what went into a run."""

from __future__ import annotations

import pytest

from pomona.report.input_tables import signatures_table, sources_table, splits_table
from pomona.runs.record import CutRecord, RunRecord


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (1.0, "1"),
        (0.25, "0.25"),
        ([0.0, 1.0], "[0.0, 1.0]"),
        ([{"filter": "q_proj", "value": 0.5}, {"value": 1.0}], '[{"filter": "q_proj", "value": 0.5}, {"value": 1.0}]'),
    ],
)
def test_a_source_s_weight_is_shown_as_the_recipe_gives_it(record: RunRecord, weight: object, text: str) -> None:
    content = record.model_dump()
    content["sources"][0]["weight"] = weight
    assert sources_table(RunRecord.model_validate(content)).rows[0][1].text == text


def shown(record: RunRecord) -> list[list[str]]:
    """The table of the splits as text, a cell's note after a slash."""
    table = splits_table(record)
    head = [column.heading for column in table.columns]
    return [head, *([f"{cell.text}/{cell.note}" if cell.note else cell.text for cell in row] for row in table.rows)]


def test_what_was_cut_stands_with_its_split(record: RunRecord) -> None:
    assert shown(record) == [
        ["Split", "Examples", "Documents cut", "Prompts cut", "Fingerprint"],
        ["train", "50", "6/2,904 characters", "0", "003200320032"],
        ["micro dev", "16", "0", "0", "001000100010"],
        ["dev", "50", "4/1,377 characters", "1/18 tokens", "003200320032"],
        ["test", "100", "11/5,016 characters", "0", "006400640064"],
    ]
    assert splits_table(record).note == (
        "Documents are cut by the task's max_document_characters. "
        "Prompts are cut where prompt and target together are longer than tuning.max_tokens."
    )


def test_only_what_was_cut_has_a_column(record: RunRecord, older: RunRecord) -> None:
    nothing = {split: CutRecord(documents=0, characters=0, prompts=0, tokens=0) for split in record.splits}
    for uncut in (older, record.model_copy(update={"cut": nothing})):
        assert shown(uncut)[:2] == [["Split", "Examples", "Fingerprint"], ["train", "50", "003200320032"]]
        assert splits_table(uncut).note == ""
    prompts = {"test": CutRecord(documents=0, characters=0, prompts=2, tokens=1)}
    table = shown(record.model_copy(update={"cut": prompts}))
    assert table[0] == ["Split", "Examples", "Prompts cut", "Fingerprint"]
    assert [row[2] for row in table[1:]] == ["–", "–", "–", "2/1 token"]


def test_signatures_by_the_metrics_own_names(record: RunRecord, older: RunRecord) -> None:
    rows = [[cell.text for cell in row] for row in signatures_table(record).rows]
    assert [row[0] for row in rows] == ["ROUGE-L", "ROUGE-1", "ROUGE-2", "BLEU", "chrF"]
    assert rows[4][1] == "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.5.1"
    assert signatures_table(older).rows == ()
