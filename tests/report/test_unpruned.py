from __future__ import annotations

import dataclasses

import pytest

from pomona.ratios import CurvePoint
from pomona.report.figures.ratio import fitted_curve, reward_by_round
from pomona.report.pruning_tables import rounds_table
from pomona.report.unpruned import gain_over_none
from pomona.report.wording import MINUS
from pomona.runs.record import RunRecord


def looked_at(record: RunRecord, reward: float, low: float, high: float, *, prune_ratio: float = 0.3187) -> RunRecord:
    """The record with ratio 0 on its curve, at a reward over the answer."""
    assert record.answer is not None
    curve = [CurvePoint(prune_ratio=0.0, reward=reward, low=low, high=high), *record.answer.curve]
    answer = dataclasses.replace(record.answer, curve=curve, prune_ratio=prune_ratio)
    return record.model_copy(update={"answer": answer})


@pytest.mark.parametrize(
    ("reward", "low", "high", "says"),
    [
        (-0.012, -0.027, 0.003, f"loss is 0.012 nats per token lower (95% interval {MINUS}0.003 to 0.027)."),
        (-0.012, -0.02, -0.004, "loss is 0.012 nats per token lower (95% interval 0.004 to 0.020)."),
        (0.012, -0.003, 0.027, f"loss is 0.012 nats per token higher (95% interval {MINUS}0.003 to 0.027)."),
        (-0.0002, -0.02, 0.02, f"loss is 0.0002 nats per token lower (95% interval {MINUS}0.020 to 0.020)."),
    ],
)
def test_the_page_says_what_the_answer_gains_over_no_pruning(
    record: RunRecord, reward: float, low: float, high: float, says: str
) -> None:
    changed = looked_at(record, reward, low, high)
    figure = fitted_curve(changed)
    assert figure is not None
    assert figure.caption.endswith(f"Ratio 0 was also tried: compared with no pruning, the answer's micro dev {says}")


def test_a_cost_is_in_its_own_unit(record: RunRecord) -> None:
    scored = record.model_copy(update={"recipe": record.recipe | {"reward": {"rouge_l": 1.0}}})
    assert "micro dev cost is 0.012 ROUGE-L / 100 lower" in gain_over_none(looked_at(scored, -0.012, -0.02, 0.0))


def test_no_sentence_if_ratio_0_was_not_tried_or_is_the_answer(record: RunRecord) -> None:
    assert gain_over_none(record) == ""
    assert gain_over_none(looked_at(record, 0.0, 0.0, 0.0, prune_ratio=0.0)) == ""
    assert gain_over_none(record.model_copy(update={"answer": None})) == ""
    figure = fitted_curve(record)
    assert figure is not None
    assert "no pruning" not in figure.caption


def test_no_sentence_for_whole_runs(record: RunRecord) -> None:
    runs = looked_at(record, -0.012, -0.02, 0.0).model_copy(update={"rounds": []})
    assert gain_over_none(runs) == ""


@pytest.mark.parametrize(
    ("reference", "caption", "note"),
    [
        (
            0.0,
            "loss without pruning minus the candidate's loss: above 0, the candidate was better than no pruning.",
            "no pruning, ratio 0",
        ),
        (0.4, "better than the ratio in force.", "at the ratio in force"),
        (None, "better than the ratio in force.", "at the ratio in force"),
    ],
)
def test_rewards_are_reported_with_their_reference(record: RunRecord, reference: float | None, caption: str, note: str) -> None:
    rounds = [dataclasses.replace(seen, reference=reference) for seen in record.rounds]
    changed = record.model_copy(update={"rounds": rounds})
    figure = reward_by_round(changed)
    assert figure is not None
    assert figure.caption.endswith(caption)
    assert note in rounds_table(changed).note
