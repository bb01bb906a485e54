"""Tables of what went into a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pomona.report.input_tables import choices_table, signatures_table, sources_table, splits_table, timing_table
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
        "Documents are cut to the task's max_document_characters. "
        "Prompts are cut if prompt and target together are longer than tuning.max_tokens."
    )


def test_only_splits_with_cuts_have_a_column(record: RunRecord, older: RunRecord) -> None:
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


def choices(record: RunRecord) -> list[tuple[str, str]]:
    return [(row[0].text, row[1].text) for row in choices_table(record).rows]


def test_how_it_was_merged_and_pruned(grid: Callable[..., RunRecord]) -> None:
    assert choices(grid()) == [
        ("Merged by", "linear, sums of the adapters' own factors"),
        ("Importance", "wanda"),
        ("Unit of pruning", "rank-one components"),
        ("Controller", "grid, 8 runs at given ratios"),
        ("Epochs and runs chosen by", "dev loss"),
    ]


def test_choices_that_are_other_than_usual(grid: Callable[..., RunRecord]) -> None:
    record = grid(granularity="parameter", select_by="rouge_l", reset="initial")
    content = record.model_dump()
    content["recipe"]["merge"] |= {"target": True, "frozen": ["stdlib"], "weights_learning_rate": 0.01, "paper": True}
    content["recipe"]["pruning"] |= {"scope": "layer", "activations": "full_pass", "schedule": "cubic", "feedback": "always"}
    found = dict(choices(RunRecord.model_validate(content)))
    assert found == {
        "Merged by": "linear, sums of the adapters' own factors, with the target LoRA, stdlib not trained, "
        "merge weights trained, without scaling, as published",
        "Importance": "wanda",
        "Unit of pruning": "single entries",
        "Ranked within": "one layer",
        "Norms from": "a pass over the training set before each selection",
        "Pruned entries become": "their start values",
        "Pruned entries are trained": "in the whole run",
        "Ratio is applied": "by a cubic ramp",
        "Controller": "grid, 8 runs at given ratios",
        "Epochs and runs chosen by": "mean ROUGE-L on the dev set",
    }
    content["recipe"]["pruning"]["paper"] = True
    assert ("Norms from", "one norm for each layer, as in the published code") in choices(RunRecord.model_validate(content))


def test_where_the_search_differed_from_the_final_run(grid: Callable[..., RunRecord]) -> None:
    content = grid().model_dump()
    for search, said in (
        ({"metric": None, "epochs": None}, None),
        ({"metric": {"name": "magnitude"}, "accumulation_steps": 1, "seed": 0}, "by magnitude, 1 batch a step, seed 0"),
        ({"epochs": 3, "patience_epochs": 2}, "3 epochs, stops after 2 epochs without a better dev loss"),
    ):
        content["recipe"]["search"] = search
        assert dict(choices(RunRecord.model_validate(content))).get("Search") == said
    content["recipe"]["search"] = {"seed": 42}
    content["search_splits"] = content["splits"]
    assert ("Search", "seed 42 and its own examples") in choices(RunRecord.model_validate(content))


def test_a_tolerance_of_the_judge_is_reported(grid: Callable[..., RunRecord]) -> None:
    content = grid(select_by="rouge_l").model_dump()
    content["recipe"]["select_tolerance"] = 1.0
    found = dict(choices(RunRecord.model_validate(content)))
    said = "mean ROUGE-L on the dev set; within 1 standard error of the best, by dev loss"
    assert found["Epochs and runs chosen by"] == said


def test_an_average_over_steps_is_reported(grid: Callable[..., RunRecord]) -> None:
    content = grid().model_dump()
    for tuning, said in (
        ({"average": "none"}, None),
        ({"average": "ema", "average_decay": 0.9}, "exponential moving average over the steps, decay 0.9"),
        ({"average": "uniform", "average_decay": 0.9}, "mean over the steps, without the first 50% of the run"),
        ({"average": "uniform", "average_decay": 0.9, "average_from": 0.0}, "mean over the steps"),
    ):
        content["recipe"]["tuning"] = tuning
        assert dict(choices(RunRecord.model_validate(content))).get("Weights judged and exported") == said


def test_what_was_not_pruned_has_no_choices_of_pruning(grid: Callable[..., RunRecord]) -> None:
    content = grid().model_dump()
    content["answer"] = {"controller": "fixed", "prune_ratio": 0.0, "low": 0.0, "high": 0.0, "flat": False}
    content["recipe"]["controller"] = {"name": "fixed", "prune_ratio": 0.0}
    assert [name for name, _ in choices(RunRecord.model_validate(content))] == ["Merged by", "Controller", "Epochs chosen by"]
    assert [name for name, _ in choices(RunRecord.model_validate(content | {"recipe": {}}))] == []


def test_tokens_of_the_runs_that_were_not_the_best_stand_together(grid: Callable[..., RunRecord]) -> None:
    rows = {row[0].text: row[1].text for row in timing_table(grid()).rows}
    assert rows["Tokens, Pomona"] == rows["Tokens, Target LoRA"] == "90,112"
    assert rows["Tokens, Pomona at 7 other ratios"] == "630,784"
    assert sum(name.startswith("Tokens") for name in rows) == 4
