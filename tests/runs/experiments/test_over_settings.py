"""Averages over settings, against scipy and plain loops over the settings' own figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy import stats as scipy_stats
from tests.runs.experiments.test_scores import lines, run, written

from pomona.errors import InputError
from pomona.metrics.holm import holm
from pomona.runs.experiments.over_settings import over_settings
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.experiments.scores import gather
from pomona.runs.experiments.table import table

SETTINGS = {"ar-12": {}, "ar-50": {"tuning.epochs": 2}, "zh-12": {"tuning.epochs": 3}, "ja-12": {"tuning.epochs": 5}}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ExperimentRecord:
    folder = tmp_path_factory.mktemp("averages")
    averages = {"twelve": "*-12", "all": "*"}
    experiment, cells = written(folder, settings=SETTINGS, averages=averages)
    for cell in cells:
        run(folder, cell, lines(replace(cell, seed=cell.seed + 10 * list(SETTINGS).index(cell.setting))))  # own answers each
    return gather(experiment, cells, folder)


@pytest.mark.parametrize("differences", [[1.0, 2.5, -0.5], [0.3, 0.1], [-4.0, -4.5, -3.9, -4.1, -4.2]])
def test_the_interval_and_the_test_are_students(differences: list[float]) -> None:
    mean = over_settings(differences)
    judge: Any = scipy_stats.ttest_1samp(differences, 0.0)
    interval = judge.confidence_interval(0.95)
    expected = (fmean(differences), interval.low, interval.high, judge.pvalue)
    assert mean == pytest.approx(expected, rel=1e-9)


def test_one_setting_has_no_interval_and_equal_differences_no_spread() -> None:
    assert over_settings([2.0]) == (2.0, None, None, None)
    assert over_settings([2.0, 2.0]) == (2.0, 2.0, 2.0, 0.0)
    assert over_settings([0.0, 0.0]).p_value == 1.0


@pytest.mark.parametrize(("metric", "own", "sign"), [("primary", "rouge_l", 1), ("loss", "loss", -1)])
@pytest.mark.parametrize(("name", "settings"), [("twelve", ["ar-12", "zh-12", "ja-12"]), ("all", list(SETTINGS))])
def test_averages_are_those_of_the_settings(
    found: ExperimentRecord, name: str, settings: list[str], metric: str, own: str, sign: int
) -> None:
    one = found.averages[name]
    assert one.settings == settings
    assert set(one.primary.values()) == {"rouge_l"}
    scores: dict[str, Any] = {setting: found.settings[setting].metrics[own] for setting in settings}
    for system in ("base", "good", "bad"):
        assert one.metrics[metric][system].mean == pytest.approx(fmean(scores[setting][system].mean for setting in settings))
    others = ("good", "bad")
    pairs = [(setting, system) for setting in settings for system in others]
    contrasts = {pair: scores[pair[0]][pair[1]].contrast for pair in pairs}
    adjusted = dict(zip(pairs, holm([contrasts[pair].p_value for pair in pairs]), strict=True))
    expected_p: dict[str, float] = {}
    for system in others:
        contrast: Any = one.metrics[metric][system].contrast
        differences = [contrasts[setting, system].difference for setting in settings]
        judge: Any = scipy_stats.ttest_1samp(differences, 0.0)
        expected_p[system] = judge.pvalue
        assert contrast.difference == pytest.approx(fmean(differences))
        assert contrast.p_value == pytest.approx(expected_p[system])
        wins = [sign * contrasts[setting, system].difference for setting in settings if adjusted[setting, system] < 0.05]
        assert (contrast.better, contrast.worse) == (sum(one > 0 for one in wins), sum(one < 0 for one in wins))
        worst = [
            min(sign * value for value in scores[setting][system].values) > min(sign * v for v in scores[setting]["base"].values)
            for setting in settings
        ]
        assert contrast.better_worst_seed == sum(worst)
    for system, p in zip(others, holm([expected_p[one] for one in others]), strict=True):
        contrast = one.metrics[metric][system].contrast
        assert contrast.p_holm == pytest.approx(p)


def test_the_table_has_the_averages_first(found: ExperimentRecord) -> None:
    text = table(found)
    assert text.index("## average: twelve") < text.index("## average: all") < text.index("## ar-12")
    assert "Over 3 settings: ar-12 (rouge_l), zh-12 (rouge_l), ja-12 (rouge_l)." in text
    contrast: Any = found.averages["twelve"].metrics["primary"]["good"].contrast
    row = next(line for line in text.splitlines() if line.startswith("| good"))
    assert f"{contrast.difference:+.2f} | {contrast.low:+.2f} to {contrast.high:+.2f}" in row


@pytest.mark.parametrize("pattern", ["*-99", "ar-50"])
def test_a_pattern_that_matches_fewer_than_two_settings_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=r"averages\.few.*an average needs two"):
        written(tmp_path, settings=SETTINGS, averages={"few": pattern})
