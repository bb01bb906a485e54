from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomona.report.figures import all_figures, even_sparsity
from pomona.report.figures.style import plotly_text
from pomona.report.figures.training import running_mean
from pomona.report.read import RunFolder, read_run
from pomona.runs.record import RunRecord

Save = Callable[..., Path]


def spec_of(run: RunFolder, key: str) -> dict[str, Any]:
    return next(figure.spec for figures in all_figures(run).values() for figure in figures if figure.key == key)


def named(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(trace for trace in spec["data"] if trace.get("name") == name)


def test_every_figure_of_a_whole_run(record: RunRecord, save: Save):
    found = {name: [figure.key for figure in figures] for name, figures in all_figures(read_run(save(record))).items()}
    assert found == {
        "results": ["scores", "differences"],
        "ratio": ["ratio-by-round", "fitted-curve", "reward-by-round"],
        "training": ["training-loss", "dev-loss"],
        "layers": ["importance-by-layer"],
    }


def test_no_data_no_figure(record: RunRecord):
    bare = record.model_copy(update={"metrics": {}, "comparisons": [], "rounds": [], "answer": None, "modules": []})
    assert all_figures(RunFolder(Path(), bare)) == {"results": [], "ratio": [], "training": [], "layers": []}


def test_dots_and_intervals(record: RunRecord):
    dots = spec_of(RunFolder(Path(), record), "scores")["data"]
    own = record.metrics["pomona"]["rouge_l"]
    assert len(dots) == 7
    assert dots[6]["x"] == [own.value]
    assert dots[6]["x"][0] - dots[6]["error_x"]["arrayminus"][0] == pytest.approx(own.low)
    assert dots[6]["x"][0] + dots[6]["error_x"]["array"][0] == pytest.approx(own.high)
    assert [dot["marker"]["color"] == dots[6]["marker"]["color"] for dot in dots] == [False] * 6 + [True]


def test_colours_of_differences_follow_the_interval(record: RunRecord):
    spec = spec_of(RunFolder(Path(), record), "differences")
    colours = dict(zip(spec["layout"]["yaxis"]["ticktext"], (dot["marker"]["color"] for dot in spec["data"]), strict=True))
    assert colours["Zero shot"] == colours["Linear"]
    assert colours["Target LoRA"] == colours["Merge + fine-tune"] != colours["Zero shot"]
    low, high = spec["layout"]["xaxis"]["range"]
    assert low < 0 < high


def test_ratio_by_round_holds_every_candidate_and_commit(record: RunRecord):
    spec = spec_of(RunFolder(Path(), record), "ratio-by-round")
    force = named(spec, "ratio in force")
    assert force["x"] == list(range(11))
    assert force["y"] == [0.40, *(seen.prune_ratio_after for seen in record.rounds)]
    candidates = named(spec, "candidates")
    assert candidates["y"] == [tried.prune_ratio for seen in record.rounds for tried in seen.candidates]
    assert candidates["marker"]["color"] == [tried.reward for seen in record.rounds for tried in seen.candidates]
    assert candidates["marker"]["cmin"] == -candidates["marker"]["cmax"]
    assert named(spec, "commit")["x"] == [seen.index + 1 for seen in record.rounds if seen.committed]
    mean, deviation = record.rounds[2].mean, record.rounds[2].deviation
    assert [spec["data"][0]["y"][2], spec["data"][1]["y"][2]] == pytest.approx([mean - deviation, mean + deviation])


def test_fitted_curve_marks_the_answer(record: RunRecord):
    spec = spec_of(RunFolder(Path(), record), "fitted-curve")
    assert record.answer is not None
    assert named(spec, "p* = 32% and its interval")["x"] == [record.answer.prune_ratio] * 2
    assert [spec["layout"]["shapes"][0][side] for side in ("x0", "x1")] == [record.answer.low, record.answer.high]


def test_training_loss_is_a_running_mean(record: RunRecord, save: Save):
    run = read_run(save(record, steps=100))
    losses = [step.loss for step in run.steps if step.system == "pomona" and step.loss is not None]
    line = named(spec_of(run, "training-loss"), "Pomona")
    assert line["x"] == list(range(1, 101))
    assert line["y"] == pytest.approx([sum(losses[max(0, i - 4) : i + 1]) / min(i + 1, 5) for i in range(100)], abs=1e-5)


def test_long_histories_are_thinned_and_keep_their_end(record: RunRecord, save: Save):
    line = named(spec_of(read_run(save(record, steps=2000, examples=1)), "training-loss"), "Pomona")
    assert len(line["x"]) <= 301
    assert [line["x"][0], line["x"][-1]] == [1, 2000]


def test_a_loss_that_is_unknown_is_left_out(record: RunRecord, save: Save):
    run = read_run(save(record, steps=3))
    unknown = RunFolder(run.path, record, steps=tuple(step.model_copy(update={"loss": None}) for step in run.steps[:1]))
    assert all_figures(unknown)["training"] == []


def test_running_mean():
    assert running_mean([1.0, 2.0, 6.0, 4.0], 2) == [1.0, 1.5, 4.0, 5.0]
    assert running_mean([3.0, 5.0], 1) == [3.0, 5.0]


def test_sparsity_is_a_sentence_where_even_and_a_map_where_not(record: RunRecord):
    assert even_sparsity(record) == "Sparsity is the same in every layer: each factor of the 60 modules is 32% zeros."
    first = record.modules[0].model_copy(update={"sparsity_A": 0.9})
    uneven = record.model_copy(update={"modules": [first, *record.modules[1:]]})
    assert even_sparsity(uneven) is None
    heat = spec_of(RunFolder(Path(), uneven), "sparsity-by-layer")["data"][0]
    assert heat["y"] == ["q_proj A", "q_proj B", "v_proj A", "v_proj B"]
    assert heat["z"][0][0] == 0.9
    assert heat["x"] == list(range(30))


def test_importance_is_logarithmic_and_blank_where_nothing_was_kept(record: RunRecord):
    gone = record.modules[0].model_copy(update={"importance": 0.0})
    heat = spec_of(RunFolder(Path(), record.model_copy(update={"modules": [gone, *record.modules[1:]]})), "importance-by-layer")[
        "data"
    ][0]
    assert heat["y"] == ["q_proj", "v_proj"]
    assert heat["z"][0][0] is None
    assert heat["z"][1][0] == pytest.approx(math.log10(0.02 * 2.4))


def test_labels_cannot_carry_markup():
    assert plotly_text("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert plotly_text("merge and fine-tune, unpruned", 12) == "merge and<br>fine-tune,<br>unpruned"
