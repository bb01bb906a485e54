from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomona.report.figures import all_figures, even_sparsity
from pomona.report.figures.style import plotly_text
from pomona.report.figures.training import running_mean
from pomona.report.input_tables import choices_table
from pomona.report.pruning_tables import rounds_table
from pomona.report.read import RunFolder, read_run
from pomona.runs.record import RunRecord

Save = Callable[..., Any]


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


def test_whole_runs_have_dots_and_no_fit(grid: Save, save: Save):
    record: RunRecord = grid()
    sections = all_figures(read_run(save(record)))
    assert [figure.key for figure in sections["ratio"]] == ["score-by-ratio"]
    (figure,) = sections["ratio"]
    spec: dict[str, Any] = figure.spec
    dots, best = spec["data"]
    answer = record.answer
    assert answer is not None
    assert dots["x"] == [point.prune_ratio for point in answer.curve]
    assert dots["y"] == [point.reward for point in answer.curve]
    lows = [y - below for y, below in zip(dots["y"], dots["error_y"]["arrayminus"], strict=True)]
    assert lows == pytest.approx([point.low for point in answer.curve])
    assert [best["x"], best["y"], best["name"]] == [[0.3], [0.0], "the best, 30%"]
    assert [spec["layout"]["shapes"][0][side] for side in ("x0", "x1")] == [0.2, 0.5]
    assert spec["layout"]["yaxis"]["title"]["text"] == "difference to the best, nats per token"
    assert "minus the dev loss" in figure.caption
    assert "round" not in figure.caption


@pytest.mark.parametrize(
    ("low", "high", "flat", "says"),
    [
        (0.3, 0.3, False, "Every ratio except the best is significantly worse"),
        (0.1, 0.8, True, "The curve is flat: the dev set shows no significant difference between the ratios."),
        (0.2, 0.5, False, "The band: from the lowest to the highest ratio not significantly worse than the best"),
    ],
)
def test_what_the_dev_set_tells_of_whole_runs(grid: Save, low: float, high: float, flat: bool, says: str):
    record: RunRecord = grid(select_by="rouge_l", low=low, high=high)
    assert record.answer is not None
    record = record.model_copy(update={"answer": dataclasses.replace(record.answer, flat=flat)})
    (figure,) = all_figures(RunFolder(Path(), record))["ratio"]
    assert says in figure.caption
    assert "ROUGE-L on the dev set" in figure.caption
    layout: Any = figure.spec["layout"]
    assert layout["yaxis"]["title"]["text"] == "difference to the best, points of ROUGE-L"
    bands = [shape for shape in layout["shapes"] if shape["type"] == "rect"]
    assert len(bands) == (low < high)


def test_of_whole_runs_the_best_is_pomona_and_the_rest_one_entry(grid: Save, save: Save):
    data = spec_of(read_run(save(grid())), "training-loss")["data"]
    assert [line["name"] for line in data] == ["Pomona at other prune ratios"] * 7 + ["Pomona", "Target LoRA", "Merge + fine-tune"]
    assert [line.get("showlegend", True) for line in data] == [True] + [False] * 6 + [True] * 3
    assert [line["hovertemplate"].rpartition("<extra>")[2] for line in data[:3]] == [
        *("Pomona at 10%</extra>", "Pomona at 20%</extra>", "Pomona at 40%</extra>"),
    ]
    assert data[7]["line"]["color"] not in {line["line"]["color"] for line in data[:7]}
    unfinished = grid().model_copy(update={"status": "running", "answer": None})
    run = read_run(save(grid()))
    data = spec_of(RunFolder(run.path, unfinished, run.steps, run.epochs), "training-loss")["data"]
    assert [line["name"] for line in data].count("Pomona at other prune ratios") == 8


@pytest.mark.parametrize(
    ("reward", "unit", "what"),
    [(None, "nats per token", "loss"), ({"loss": 1.0}, "nats per token", "loss"), ({"rouge_l": 1.0}, "ROUGE-L / 100", "cost")],
)
def test_rewards_are_shown_in_their_own_unit(record: RunRecord, reward: dict[str, float] | None, unit: str, what: str):
    rewarded = record.model_copy(update={"recipe": record.recipe | ({"reward": reward} if reward else {})})
    figures = {figure.key: figure for figure in all_figures(RunFolder(Path(), rewarded))["ratio"]}
    for key in ("reward-by-round", "fitted-curve"):
        layout: Any = figures[key].spec["layout"]
        assert layout["yaxis"]["title"]["text"] == f"reward, {unit}"
    assert f"Micro dev {what} at the ratio in force minus the candidate's {what}" in figures["reward-by-round"].caption
    table = rounds_table(rewarded)
    assert table.columns[2].heading == f"Reference {what} (ratio)"
    assert f"in {unit}." in table.note
    assert ("nats" in table.note) == ("nats" in unit)
    assert ("a score is subtracted" in table.note) == (what == "cost")
    rows = {row[0].text: row[1].text for row in choices_table(rewarded).rows}
    words = {"nats per token": "micro dev loss", "ROUGE-L / 100": "ROUGE-L / 100, on the micro dev set"}[unit]
    assert rows.get("Reward of the rounds") == (words if reward else None)


def test_the_large_dot_is_the_epoch_that_was_kept(record: RunRecord, save: Save):
    line = named(spec_of(read_run(save(record)), "dev-loss"), "Pomona")
    assert line["y"] == sorted(line["y"], reverse=True)  # the last epoch has the lowest loss, the third was kept
    assert line["marker"]["size"] == [6, 6, 12, 6]


def test_an_epoch_that_was_judged_again_is_a_dot_off_the_line(record: RunRecord, save: Save):
    folder = save(record)
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    whole = named(spec_of(read_run(folder), "dev-loss"), "Pomona")
    place = next(i for i, line in enumerate(lines) if '"pomona"' in line and '"epoch", "system"' in line and '"step": 52' in line)
    again = {"kind": "epoch", "system": "pomona", "step": 60, "epoch": 1, "dev_loss": 1.5, "best": True}
    after = [line.replace('"best": true', '"best": false') if '"pomona"' in line else line for line in lines]
    after.insert(place + 1, json.dumps(again))
    (folder / "history.jsonl").write_text("\n".join(after) + "\n", encoding="utf-8")
    run = read_run(folder)
    line, dot = [one for one in spec_of(run, "dev-loss")["data"] if one["name"] == "Pomona"]
    assert (line["x"], line["y"]) == (whole["x"], whole["y"])
    assert line["marker"]["size"] == [6, 6, 6, 6]
    assert (dot["mode"], dot["x"], dot["y"], dot["marker"]["size"], dot["showlegend"]) == ("markers", [60], [1.5], [12], False)
    figures = (all_figures(one)["training"] for one in (run, read_run(save(record))))
    captions = [next(one.caption for one in drawn if one.key == "dev-loss") for drawn in figures]
    assert ["judged again" in caption for caption in captions] == [True, False]


def test_a_metric_that_judged_epochs_has_a_figure(grid: Save, save: Save):
    run = read_run(save(grid(select_by="rouge_l")))
    assert [figure.key for figure in all_figures(run)["training"]] == ["training-loss", "dev-score", "dev-loss"]
    score, loss = (named(spec_of(run, key), "Pomona") for key in ("dev-score", "dev-loss"))
    assert score["y"] == pytest.approx([40 - 5 * one for one in loss["y"]])
    assert next(figure.title for figure in all_figures(run)["training"][1:]) == "ROUGE-L on the dev set"


@pytest.mark.parametrize(
    ("granularity", "end"),
    [
        ("parameter", "each factor of the 8 modules is 25% zeros."),
        ("rank", "zeros. It is measured before components that are all zero are removed from the adapter."),
        ("module", "zeros. It is measured before modules that are all zero are removed from the adapter."),
    ],
)
def test_zeros_that_the_adapter_leaves_out_are_said(grid: Save, granularity: str, end: str):
    record: RunRecord = grid(granularity=granularity)
    assert str(even_sparsity(record)).endswith(end)
    uneven = record.model_copy(update={"modules": [record.modules[0].model_copy(update={"sparsity_A": 1.0}), *record.modules[1:]]})
    caption = all_figures(RunFolder(Path(), uneven))["layers"][0].caption
    assert ("removed from the adapter" in caption) == (granularity != "parameter")


def test_what_was_kept_of_each_source_is_a_map_of_sources_and_layers(grid: Save):
    record: RunRecord = grid(granularity="source_rank")
    names = [source.name for source in record.sources]
    shares = [[1.0, 0.25 * one.layer if one.projection == "q_proj" else None] for one in record.modules if one.layer is not None]
    modules = [one.model_copy(update={"kept_by_source": own}) for one, own in zip(record.modules, shares, strict=True)]
    run = RunFolder(Path(), record.model_copy(update={"modules": modules}))
    kept = all_figures(run)["layers"][0]
    assert kept.key == "kept-by-source"
    assert "removed from the adapter" in kept.caption
    (drawn,) = spec_of(run, kept.key)["data"]
    assert (drawn["y"], drawn["x"]) == (names[:2], [0, 1, 2, 3])
    assert drawn["z"] == [[1.0, 1.0, 1.0, 1.0], [0.0, 0.25, 0.5, 0.75]]


def test_entries_that_went_back_to_their_start_have_no_map_of_zeros(grid: Save):
    record: RunRecord = grid(reset="initial")
    uneven = record.model_copy(update={"modules": [record.modules[0].model_copy(update={"sparsity_A": 1.0}), *record.modules[1:]]})
    assert "so they are not zero" in str(even_sparsity(uneven))
    assert [figure.key for figure in all_figures(RunFolder(Path(), uneven))["layers"]] == ["importance-by-layer"]
