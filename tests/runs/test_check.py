"""Looking at a recipe before anything is trained: a metric that cannot be had is found, wherever the recipe names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.setting import inside, make_setting, recipe, write_recipe

from pomona.errors import MissingPackageError
from pomona.metrics import Chrf
from pomona.runs.check import check_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make_setting(tmp_path_factory.mktemp("check"))
    with inside(folder):
        yield folder


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": {"loss": 0.5, "chrf": 0.5}},
        {"select_by": "chrf"},
        {"evaluation": {"metrics": ["bleu", "chrf"]}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_metric_that_cannot_be_had(folder: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(folder / "it.yaml", recipe(**changes))
    assert "error" not in {finding.level for finding in check_recipe("it.yaml")}

    def missing(self: Chrf, predictions: object, references: object) -> None:
        raise MissingPackageError("no such package", field="chrf")

    monkeypatch.setattr(Chrf, "table", missing)
    (found,) = check_recipe("it.yaml")
    assert (found.level, found.message) == ("error", "chrf: no such package")


def test_a_reward_that_is_no_metric(folder: Path) -> None:
    write_recipe(folder / "it.yaml", recipe(reward="rouge_L"))
    (found,) = check_recipe("it.yaml")
    assert found.level == "error"
    assert found.message.startswith("it.yaml: reward: no such metric (got 'rouge_L'). Did you mean 'rouge_l'?")
