"""The page of an experiment, and its CSV."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pomona.cli.main import app
from pomona.errors import InputError
from pomona.report.experiment_page import judged, render_experiment, who_wins, write_experiment_report
from pomona.runs.experiments.over_settings import average
from pomona.runs.experiments.record import CellRecord, Contrast, ExperimentRecord, SettingRecord, SystemCost, SystemScore

NAMES = ["target", "better", "alike", "worse"]
SHIFTS = {"target": 0.0, "better": 3.0, "alike": 0.4, "worse": -2.0}


def contrast(difference: float, p_holm: float | None = None) -> Contrast:
    p = p_holm if p_holm is not None else (0.5 if abs(difference) < 1 else 0.004)
    ends = {"low": difference - 0.9, "high": difference + 0.9}
    return Contrast(difference=difference, **ends, p_value=p / 2, p_holm=p, holds_for="new_seeds", seeds=2, examples=50)


def scored(system: str, scale: float) -> SystemScore:
    mean = 25.0 + scale * SHIFTS[system]
    return SystemScore(
        mean=mean,
        deviation=0.5,
        seeds=2,
        missing=0,
        low=mean - 1,
        high=mean + 1,
        holds_for="new_seeds",
        examples=50,
        values=[mean - 0.5, mean + 0.5],
        contrast=None if system == "target" else contrast(scale * SHIFTS[system]),
    )


def make_record() -> ExperimentRecord:
    settings = {
        setting: SettingRecord(
            draws=1000,
            metrics={
                "rouge_l": {name: scored(name, 1.0) for name in NAMES},
                "loss": {name: scored(name, -0.7) for name in NAMES},
            },
            costs={name: SystemCost(prune_ratio=0.495, sparsity=0.49, train_seconds=61.0) for name in NAMES},
            signatures={"rouge_l": "rouge-score|v:0.1.2"},
        )
        for setting in ("titles", "abstracts")
    }
    cells = [
        CellRecord(setting=setting, system=name, seed=seed, path=f"{setting}/{name}-{seed}", status="done")
        for setting in settings
        for name in NAMES
        for seed in (0, 1)
    ]
    cells[-1] = cells[-1].model_copy(update={"status": "failed", "error": "out of <memory>"})
    return ExperimentRecord(
        name="four-systems",
        seeds=[0, 1],
        against="target",
        settings=settings,
        averages={"both": average(settings, NAMES, "target")},
        cells=cells,
        total_seconds=3725.0,
    )


def make_experiment(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(make_record().model_dump_json(), encoding="utf-8")
    return folder


def test_the_page_says_what_was_run_who_wins_and_what_lacks() -> None:
    text = render_experiment(make_record())
    assert "compares 4 systems (target, better, alike and worse) in 2 settings over 2 seeds; 15 of 16 runs are done." in text
    assert (
        "After correction for all comparisons of a table, better (titles) and better (abstracts) are significantly better than "
        "target; worse (titles) and worse (abstracts) are significantly worse than target; alike (titles) and alike (abstracts) "
        "are indistinguishable from target: the difference may be chance."
    ) in text
    assert "abstracts/worse-1: failed, out of &lt;memory&gt;" in text
    assert "covers other test examples and other seeds" in text
    assert "1\xa0h 02\xa0min" in text
    assert "50%" in text  # 0.495, by the one rule
    assert text.count("<svg") == 2
    assert "Average: both" in text


def test_without_a_system_to_compare_with_nothing_is_claimed() -> None:
    alone = make_record().model_copy(update={"against": None, "averages": {}})
    assert "give `against`" in who_wins(alone)
    assert "p (Holm)" not in render_experiment(alone)


@pytest.mark.parametrize(
    ("metric", "difference", "p_holm", "says"),
    [
        ("rouge_l", 3.0, 0.01, "better"),
        ("rouge_l", -3.0, 0.01, "worse"),
        ("loss", 3.0, 0.01, "worse"),
        ("rouge_l", 3.0, 0.051, "not significant"),
        ("rouge_l", 0.5, 0.01, "not significant"),
    ],
)
def test_a_difference_counts_by_interval_and_corrected_p(metric: str, difference: float, p_holm: float, says: str) -> None:
    assert judged(metric, contrast(difference, p_holm)) == says


def test_the_csv_has_every_score_and_every_difference(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "experiment")
    write_experiment_report(folder)
    with (folder / "scores.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 2 * 4 * 2 * 2
    assert scores[2] == {"setting": "titles", "system": "better", "seed": "0", "metric": "rouge_l", "value": "27.5"}
    with (folder / "systems.csv").open(newline="") as file:
        systems = list(csv.DictReader(file))
    assert len(systems) == 2 * 4 * 2
    found = systems[1]
    assert [found[key] for key in ("system", "mean", "against", "difference", "p_holm", "difference_holds_for")] == [
        *("better", "28.0", "target", "3.0", "0.004", "new_seeds"),
    ]
    assert systems[0]["against"] == systems[0]["difference"] == ""


def test_the_report_verb_takes_an_experiment(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "experiment")
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert (result.exit_code, result.output.split()) == (0, [str(folder / "report.html")])
    assert 10_000 < (folder / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read"),
        ('{"format_version": 999}', "up to format 1"),
        ('{"name": "a"}', "Field required"),
        ("[]", "valid dictionary"),
    ],
)
def test_a_broken_experiment_is_one_line(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(InputError, match=problem):
        write_experiment_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_page_is_made_without_torch(tmp_path: Path) -> None:
    code = "import sys; from pomona.report.experiment_page import write_experiment_report as w; w(sys.argv[1])"
    code += "; print('transformers' in sys.modules)"
    folder = make_experiment(tmp_path / "experiment")
    made = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"
