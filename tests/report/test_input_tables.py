"""Tables of what went into a run."""

from __future__ import annotations

import pytest

from pomona.report.input_tables import sources_table
from pomona.runs.record import RunRecord


@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        (1.0, "1"),
        (0.25, "0.25"),
        ([0.0, 1.0], "[0.0, 1.0]"),
        ([{"filter": "q_proj", "value": 0.5}, {"value": 1.0}], '[{"filter": "q_proj", "value": 0.5}, {"value": 1.0}]'),
    ],
)
def test_a_source_s_weight_is_shown_as_the_recipe_gives_it(record: RunRecord, weight: object, shown: str) -> None:
    content = record.model_dump()
    content["sources"][0]["weight"] = weight
    assert sources_table(RunRecord.model_validate(content)).rows[0][1].text == shown
