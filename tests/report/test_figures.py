from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pomona.report.figures import all_figures, even_sparsity
from pomona.report.figures.forest import Bar, Forest
from pomona.report.figures.heat import HeatMap, colour
from pomona.report.figures.plot import Band, Plot, Series
from pomona.report.figures.ratio import diverging
from pomona.report.figures.style import Figure, Line
from pomona.report.figures.svg import Scale, ticks, wrapped
from pomona.report.figures.training import running_mean
from pomona.report.input_tables import choices_table
from pomona.report.pruning_tables import rounds_table
from pomona.report.read import RunFolder, read_run
from pomona.runs.record import RunRecord

Save = Callable[..., Any]


def chart_of(run: RunFolder, key: str) -> Any:
    return next(figure.chart for figures in all_figures(run).values() for figure in figures if figure.key == key)


def named(plot: Plot, name: str) -> Series:
    return next(one for one in plot.series if one.name == name)


def texts_of(svg: str) -> list[str]:
    """Parsed as XML, so that what is not well-formed fails."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_every_figure_of_a_whole_run(record: RunRecord, save: Save):
    found = {name: [figure.key for figure in figures] for name, figures in all_figures(read_run(save(record))).items()}
    assert found == {
        "results": ["scores", "differences"],
        "ratio": ["ratio-by-round", "fitted-curve", "reward-by-round"],
        "training": ["training-loss", "dev-loss"],
        "sources": [],
        "layers": ["importance-by-layer"],
    }


def test_no_data_no_figure(record: RunRecord):
    bare = record.model_copy(update={"metrics": {}, "comparisons": [], "rounds": [], "answer": None, "modules": []})
    assert all_figures(RunFolder(Path(), bare)) == {"results": [], "ratio": [], "training": [], "sources": [], "layers": []}


def test_dots_and_intervals(record: RunRecord):
    chart = chart_of(RunFolder(Path(), record), "scores")
    own = record.metrics["pomona"]["rouge_l"]
    rows = chart.rows
    assert len(rows) == 7
    assert (rows[6].value, rows[6].low, rows[6].high) == (own.value, own.low, own.high) == (own.value, *chart.band)
    assert [row.colour == rows[6].colour for row in rows] == [False] * 6 + [True]


def test_colours_of_differences_follow_the_interval(record: RunRecord):
    chart = chart_of(RunFolder(Path(), record), "differences")
    colours = {row.name: row.colour for row in chart.rows}
    assert colours["Zero shot"] == colours["Linear"]
    assert colours["Target LoRA"] == colours["Merge + fine-tune"] != colours["Zero shot"]
    assert chart.zero


def test_ratio_by_round_holds_every_candidate_and_commit(record: RunRecord):
    plot = chart_of(RunFolder(Path(), record), "ratio-by-round")
    force = named(plot, "ratio in force")
    assert force.x == list(range(11))
    assert force.y == [0.40, *(seen.prune_ratio_after for seen in record.rounds)]
    candidates = named(plot, "candidates")
    tried = [one for seen in record.rounds for one in seen.candidates]
    assert candidates.y == [one.prune_ratio for one in tried]
    largest = max(abs(one.reward) for one in tried)
    assert candidates.fills == [diverging(one.reward / largest) for one in tried]
    assert named(plot, "commit").x == [seen.index + 1 for seen in record.rounds if seen.committed]
    mean, deviation = record.rounds[2].mean, record.rounds[2].deviation
    assert [plot.bands[0].low[2], plot.bands[0].high[2]] == pytest.approx([mean - deviation, mean + deviation])


def test_fitted_curve_marks_the_answer(record: RunRecord):
    plot = chart_of(RunFolder(Path(), record), "fitted-curve")
    assert record.answer is not None
    assert named(plot, "p* = 32% and its interval").x == [record.answer.prune_ratio] * 2
    assert plot.marked == (record.answer.low, record.answer.high)


def test_training_loss_is_a_running_mean(record: RunRecord, save: Save):
    run = read_run(save(record, steps=100))
    losses = [step.loss for step in run.steps if step.system == "pomona" and step.loss is not None]
    line = named(chart_of(run, "training-loss"), "Pomona")
    assert line.x == list(range(1, 101))
    assert line.y == pytest.approx([sum(losses[max(0, i - 4) : i + 1]) / min(i + 1, 5) for i in range(100)], abs=1e-5)


def test_long_histories_are_thinned_and_keep_their_end(record: RunRecord, save: Save):
    plot = chart_of(read_run(save(record, steps=2000, examples=1)), "training-loss")
    line = named(plot, "Pomona")
    assert len(line.x) <= 301
    assert [line.x[0], line.x[-1]] == [1, 2000]
    rows = plot.values().rows
    assert len(rows) == 25
    assert [rows[0][0].text, rows[-1][0].text] == ["1", "2000"]


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
    heat = chart_of(RunFolder(Path(), uneven), "sparsity-by-layer")
    assert heat.rows == ["q_proj A", "q_proj B", "v_proj A", "v_proj B"]
    assert heat.cells["q_proj A", 0] == 0.9
    assert heat.layers == list(range(30))


def test_importance_is_logarithmic_and_blank_where_nothing_was_kept(record: RunRecord):
    gone = record.modules[0].model_copy(update={"importance": 0.0})
    heat = chart_of(RunFolder(Path(), record.model_copy(update={"modules": [gone, *record.modules[1:]]})), "importance-by-layer")
    assert heat.rows == ["q_proj", "v_proj"]
    assert heat.cells["q_proj", 0] is None
    assert heat.cells["v_proj", 0] == pytest.approx(math.log10(0.02 * 2.4))


def test_labels_cannot_carry_markup():
    evil = "<script>x</script> & y"
    charts = [
        Forest(evil, [Bar(evil, 1.0, 0.5, 1.5, "red")]),
        Plot(evil, evil, [Series(evil, [0.0, 1.0], [1.0, 2.0], Line("red"), sizes=[3.0, 3.0], tips=[evil, evil])]),
        HeatMap({(evil, 0): 1.0}),
    ]
    for chart in charts:
        svg = Figure("key", evil, evil, chart).svg
        assert "<script" not in svg
        root = ElementTree.fromstring(svg)
        assert [root[0].text, root[1].text] == [evil, evil]
        assert any("<script" in text for text in texts_of(svg))
    assert wrapped("merge and fine-tune, unpruned", 12) == ["merge and", "fine-tune,", "unpruned"]


def test_places_and_ticks_of_a_scale():
    to_x = Scale(10.0, 20.0, 100.0, 300.0)
    assert [to_x(10.0), to_x(12.5), to_x(20.0), to_x(99.0)] == [100.0, 150.0, 300.0, 300.0]
    assert ticks(0.0, 0.8, percent=True, most=4) == ((0.0, 0.2, 0.4, 0.6, 0.8), ("0%", "20%", "40%", "60%", "80%"))
    assert ticks(-0.013, 0.011, most=6).labels == ("\N{MINUS SIGN}0.010", "\N{MINUS SIGN}0.005", "0.000", "0.005", "0.010")
    assert ticks(1, 3, whole=True).labels == ("1", "2", "3")
    assert ticks(5.0, 5.0).labels == ("5.00",)


def test_points_are_drawn_where_their_axis_says():
    series = Series("a", [0.0, 1.0], [0.0, 10.0], Line("red"), sizes=[3.0, 3.0], low=[-1.0, 9.0], high=[1.0, 11.0])
    plot = Plot("x", "y", [series], [Band("b", [0.0, 1.0], [0.0, 8.0], [2.0, 12.0])], range_x=(0.0, 1.0), range_y=(-2.0, 12.0))
    root = ElementTree.fromstring(Figure("k", "t", "c", plot).svg)
    circles = [one for one in root if one.tag == "circle"]
    ticks_y = {one.text: float(one.attrib["y"]) - 4 for one in root.iter("text") if one.attrib.get("text-anchor") == "end"}
    assert float(circles[0].attrib["cy"]) == pytest.approx(ticks_y["0.0" if "0.0" in ticks_y else "0"], abs=0.1)
    assert float(circles[1].attrib["cy"]) == pytest.approx(ticks_y["10"], abs=0.1)
    assert float(circles[1].attrib["cx"]) == 550
    assert [[cell.text for cell in row] for row in plot.values().rows] == [["0", "0 (\N{MINUS SIGN}1 to 1)"], ["1", "10 (9 to 11)"]]


def test_numbers_that_are_not_finite_are_not_drawn():
    series = Series("a", [0.0, 1.0, 2.0], [math.nan, 1.0, math.inf], Line("red"), sizes=[3.0] * 3)
    svg = Figure("k", "t", "c", Plot("x", "y", [series])).svg
    assert "nan" not in svg
    assert "inf" not in svg
    heat = Figure("k", "t", "c", HeatMap({("a", 0): math.nan, ("a", 1): 1.0})).svg
    assert "nan" not in heat


def test_the_scale_of_colours_has_its_ends_and_its_middle():
    assert [colour(0.0), colour(1.0), colour(2.0)] == ["#00224e", "#fee838", "#fee838"]
    assert diverging(0.0) == "#c9c9c9"


def test_whole_runs_have_dots_and_no_fit(grid: Save, save: Save):
    record: RunRecord = grid()
    sections = all_figures(read_run(save(record)))
    assert [figure.key for figure in sections["ratio"]] == ["score-by-ratio"]
    (figure,) = sections["ratio"]
    plot: Any = figure.chart
    dots, best = plot.series
    answer = record.answer
    assert answer is not None
    for drawn, field in ((dots.x, "prune_ratio"), (dots.y, "reward"), (dots.low, "low"), (dots.high, "high")):
        assert drawn == [getattr(point, field) for point in answer.curve]
    assert (best.x, best.y, best.name) == ([0.3], [0.0], "the best, 30%")
    assert plot.marked == (0.2, 0.5)
    assert plot.y == "difference to the best, nats per token"
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
    plot: Any = figure.chart
    assert plot.y == "difference to the best, points of ROUGE-L"
    assert (plot.marked is not None) == (low < high)


def test_of_whole_runs_the_best_is_pomona_and_the_rest_one_entry(grid: Save, save: Save):
    lines = chart_of(read_run(save(grid())), "training-loss").series
    assert [line.name for line in lines if line.legend] == [
        *("Pomona at other prune ratios", "Pomona", "Target LoRA", "Merge + fine-tune"),
    ]
    assert [line.legend for line in lines] == [True] + [False] * 6 + [True] * 3
    assert [line.name for line in lines[1:3]] == ["Pomona at 20%", "Pomona at 40%"]
    assert lines[7].line.colour not in {line.line.colour for line in lines[:7]}
    unfinished = grid().model_copy(update={"status": "running", "answer": None})
    run = read_run(save(grid()))
    lines = chart_of(RunFolder(run.path, unfinished, run.steps, run.epochs), "training-loss").series
    assert [line.line.width for line in lines].count(1.0) == 8


@pytest.mark.parametrize(
    ("reward", "unit", "what"),
    [(None, "nats per token", "loss"), ({"loss": 1.0}, "nats per token", "loss"), ({"rouge_l": 1.0}, "ROUGE-L / 100", "cost")],
)
def test_rewards_are_shown_in_their_own_unit(record: RunRecord, reward: dict[str, float] | None, unit: str, what: str):
    rewarded = record.model_copy(update={"recipe": record.recipe | ({"reward": reward} if reward else {})})
    figures = {figure.key: figure for figure in all_figures(RunFolder(Path(), rewarded))["ratio"]}
    for key in ("reward-by-round", "fitted-curve"):
        plot: Any = figures[key].chart
        assert plot.y == f"reward, {unit}"
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
    line = named(chart_of(read_run(save(record)), "dev-loss"), "Pomona")
    assert line.y == sorted(line.y, reverse=True)  # the last epoch has the lowest loss, the third was kept
    assert line.sizes == [3, 3, 6, 3]


def test_an_epoch_that_was_judged_again_is_a_dot_off_the_line(record: RunRecord, save: Save):
    folder = save(record)
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    whole = named(chart_of(read_run(folder), "dev-loss"), "Pomona")
    place = next(i for i, line in enumerate(lines) if '"pomona"' in line and '"epoch", "system"' in line and '"step": 52' in line)
    again = {"kind": "epoch", "system": "pomona", "step": 60, "epoch": 1, "dev_loss": 1.5, "best": True}
    after = [line.replace('"best": true', '"best": false') if '"pomona"' in line else line for line in lines]
    after.insert(place + 1, json.dumps(again))
    (folder / "history.jsonl").write_text("\n".join(after) + "\n", encoding="utf-8")
    run = read_run(folder)
    line, dot = [one for one in chart_of(run, "dev-loss").series if one.name == "Pomona"]
    assert (line.x, line.y, line.sizes) == (whole.x, whole.y, [3, 3, 3, 3])
    assert (dot.line, dot.x, dot.y, dot.sizes, dot.legend) == (None, [60], [1.5], [6], False)
    figures = (all_figures(one)["training"] for one in (run, read_run(save(record))))
    captions = [next(one.caption for one in drawn if one.key == "dev-loss") for drawn in figures]
    assert ["judged again" in caption for caption in captions] == [True, False]


def test_a_metric_that_judged_epochs_has_a_figure(grid: Save, save: Save):
    run = read_run(save(grid(select_by="rouge_l")))
    assert [figure.key for figure in all_figures(run)["training"]] == ["training-loss", "dev-score", "dev-loss"]
    score, loss = (named(chart_of(run, key), "Pomona") for key in ("dev-score", "dev-loss"))
    assert score.y == pytest.approx([40 - 5 * one for one in loss.y])
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
    (kept,) = all_figures(run)["sources"]
    assert kept.key == "kept-by-source"
    assert "removed from the adapter" in kept.caption
    heat = chart_of(run, kept.key)
    assert (heat.rows, heat.layers) == (names[:2], [0, 1, 2, 3])
    assert [[heat.cells[name, layer] for layer in heat.layers] for name in names[:2]] == [[1.0] * 4, [0.0, 0.25, 0.5, 0.75]]
    assert [cell.text for cell in kept.values.rows[1]] == ["1", "100.0%", "25.0%"]


def test_entries_that_went_back_to_their_start_have_no_map_of_zeros(grid: Save):
    record: RunRecord = grid(reset="initial")
    uneven = record.model_copy(update={"modules": [record.modules[0].model_copy(update={"sparsity_A": 1.0}), *record.modules[1:]]})
    assert "so they are not zero" in str(even_sparsity(uneven))
    assert [figure.key for figure in all_figures(RunFolder(Path(), uneven))["layers"]] == ["importance-by-layer"]
