"""What the recipe chose, as the report puts it; records without a choice had the default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from pomona.ratios import Answer
from pomona.report import choices
from pomona.runs.record import RunRecord

Grid = Callable[..., RunRecord]


def test_a_dotted_path_into_the_recipe(record: RunRecord):
    assert choices.chosen(record, "merge.method") == "concat"
    assert choices.chosen(record, "merge.method.deeper") is None
    assert choices.chosen(record, "pruning.granularity") is None


def test_a_recipe_that_does_not_say_had_the_default(record: RunRecord):
    assert choices.granularity(record) == "parameter"
    assert choices.prunes_to_zero(record)
    assert choices.select_metric(record) == "loss"
    assert choices.judged_by(record) == "dev loss"
    assert choices.dev_unit(record) == "nats per token"


def test_a_recipe_that_says(grid: Grid):
    record = grid(granularity="module", select_by="rouge_l", reset="initial")
    assert choices.granularity(record) == "module"
    assert not choices.prunes_to_zero(record)
    assert choices.judged_by(record) == "ROUGE-L on the dev set"
    assert choices.dev_unit(record) == "points of ROUGE-L"


@pytest.mark.parametrize(
    ("reward", "loss", "unit"),
    [
        ({"loss": 1.0}, True, "nats per token"),
        ({"rouge_l": 1.0}, False, "ROUGE-L / 100"),
        ({"loss": 0.5, "chrf": 2.0}, False, "0.5 × nats per token + 2 × chrF / 100"),
        ({"loss": 2.0}, False, "2 × nats per token"),
    ],
)
def test_what_rounds_were_rewarded_by(record: RunRecord, reward: dict[str, float], loss: bool, unit: str):
    assert choices.rewards_loss(record)
    assert choices.reward_unit(record) == "nats per token"
    rewarded = record.model_copy(update={"recipe": {"reward": reward}})
    assert (choices.rewards_loss(rewarded), choices.reward_unit(rewarded)) == (loss, unit)


def test_where_the_ratio_comes_from(record: RunRecord, grid: Grid):
    grid_record = grid()
    assert [choices.is_search(one) for one in (record, grid_record)] == [False, True]
    assert not choices.is_search(record.model_copy(update={"answer": None, "rounds": []}))
    assert grid_record.answer is not None
    sure = dataclasses.replace(grid_record.answer, low=0.3, high=0.3)
    fixed = Answer(controller="fixed", prune_ratio=0.3, low=0.3, high=0.3, flat=False)
    assert [choices.is_given(one) for one in (grid_record.answer, sure, fixed)] == [False, False, True]


@pytest.mark.parametrize("path", ["", "no.such", "sources.0"])
def test_a_path_that_leads_nowhere(grid: Grid, path: str):
    assert choices.chosen(grid(), path) is None
