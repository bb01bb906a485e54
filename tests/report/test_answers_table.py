"""What the answers look like: the table, and what is said to be alarming."""

from __future__ import annotations

from typing import Any

import pytest

from pomona.report.answers_table import alarms, answers_table, own_alarm
from pomona.runs.record import RunRecord


def changed(record: RunRecord, system: str, **values: Any) -> RunRecord:
    """The record with some figures of one system's answers, or its `unscored`, replaced."""
    content = record.model_dump()
    content["systems"][system]["unscored"] = values.pop("unscored", 0)
    content["systems"][system]["answers"].update(values)
    return RunRecord.model_validate(content)


def quiet(record: RunRecord) -> RunRecord:
    """The record with zero shot's answers as unremarkable as the others'."""
    return changed(record, "zero_shot", unended_share=0.3, repetition=0.3, mean_words=20.0, length_ratio=2.0, empty_share=0.05)


def test_a_row_a_system(record: RunRecord) -> None:
    table = answers_table(record)
    assert [column.heading for column in table.columns] == ["System", "Empty", "Without an end", "Repetition", "Words", "Length"]
    assert [[cell.text for cell in row] for row in table.rows[:2]] == [
        ["Zero shot", "0.0%", "94.0%", "41.2%", "41.3", "4.62×"],
        ["Target LoRA", "0.0%", "1.0%", "0.4%", "9.1", "1.02×"],
    ]
    assert [[cell.alarm for cell in row] for row in table.rows[:2]] == [[False, False, True, True, False, True], [False] * 6]
    assert table.strong == 6
    assert "Prompts cut" not in table.note


@pytest.mark.parametrize(("figure", "heading", "shown"), [("unscored", "Unscored", "1,003"), ("cut_prompts", "Prompts cut", "7")])
def test_counts_have_a_column_only_where_there_are_any(record: RunRecord, figure: str, heading: str, shown: str) -> None:
    table = answers_table(changed(record, "svd", **{figure: int(shown.replace(",", ""))}))
    assert [column.heading for column in table.columns][6:] == [heading]
    assert [row[6].text for row in table.rows] == ["0", "0", "0", "0", shown, "0", "0"]
    assert ("Prompts cut: prompts too long to leave room" in table.note) == (figure == "cut_prompts")


def test_what_is_unknown_is_no_zero_and_no_alarm(record: RunRecord) -> None:
    nothing = dict.fromkeys(("empty_share", "unended_share", "mean_words", "length_ratio", "repetition", "cut_prompts"))
    unknown = changed(record, "zero_shot", **nothing)
    assert [cell.text for cell in answers_table(unknown).rows[0]] == ["Zero shot", "–", "–", "–", "–", "–"]
    assert alarms(unknown) == ()


def test_a_record_that_knows_nothing_of_answers_has_no_table(older: RunRecord) -> None:
    assert answers_table(older).rows == ()
    assert alarms(older) == ()
    assert own_alarm(older) is None
    content = older.model_dump()
    content["systems"]["svd"]["unscored"] = 3
    table = answers_table(RunRecord.model_validate(content))
    assert [column.heading for column in table.columns] == ["System", "Unscored"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"empty_share": 0.06},
            "More than 5% of the answers are empty: SVD (6.0%). An empty answer scores 0, whatever its cause.",
        ),
        ({"unended_share": 0.31}, "reached the task's max_new_tokens without an end: SVD (31.0%)."),
        ({"repetition": 0.55}, "More than 30% of the four-word sequences in the answers are repetitions: SVD (55.0%)."),
        ({"length_ratio": 2.3}, "less than half or more than twice as many words as the references: SVD (2.30×)."),
        ({"length_ratio": 0.49}, "less than half or more than twice as many words as the references: SVD (0.49×)."),
        ({"unscored": 2}, "left out of the scores, not counted as wrong: SVD (2)."),
    ],
)
def test_an_alarm_names_the_system_and_its_figure(record: RunRecord, values: dict[str, float], says: str) -> None:
    assert alarms(quiet(record)) == ()
    (only,) = alarms(changed(quiet(record), "svd", **values))
    assert says in only


def test_systems_with_one_trouble_share_a_sentence(record: RunRecord) -> None:
    first, *others = alarms(changed(record, "svd", unended_share=0.5))
    assert "without an end: Zero shot (94.0%) and SVD (50.0%)." in first
    assert len(others) == 2


def test_the_result_s_own_alarm_is_of_the_result_alone(record: RunRecord) -> None:
    assert own_alarm(record) is None
    assert own_alarm(record.model_copy(update={"systems": {}})) is None
    bad = changed(record, "pomona", empty_share=0.07, unended_share=0.41, length_ratio=0.31, unscored=3)
    assert own_alarm(bad) == (
        "Read Pomona's answers before you trust its scores: "
        "7.0% empty, 41.0% without an end, 0.31× the references' length and 3 unscored."
    )
