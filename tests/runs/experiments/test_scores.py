"""An experiment's figures from the files of its cells, against plain loops over the same files."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import yaml
from scipy import stats as scipy_stats

from pomona.errors import InputError
from pomona.evaluation.scores import MeanLoss
from pomona.metrics import Bleu, interval, metrics, paired_difference
from pomona.ratios import Answer
from pomona.runs.experiments.recipe import Cell, Experiment, read_experiment
from pomona.runs.experiments.record import ExperimentRecord
from pomona.runs.experiments.scores import gather
from pomona.runs.experiments.seed_mean import Rows, SeedMean, joined, rows
from pomona.runs.experiments.table import table
from pomona.runs.record import RunRecord, Timing
from pomona.seeding import stream

SEEDS = [3, 1, 4]
SYSTEMS = {"base": {"baseline": "zero_shot"}, "good": {}, "bad": {"tuning.epochs": 1}}
TEXT = "the old bridge over the river was closed after a long winter and opened again in spring"
DRAWS = 200


def written(folder: Path, **changes: Any) -> tuple[Experiment, list[Cell]]:
    content = {
        "name": "made",
        "recipe": {"data": {"train": "x.jsonl"}, "sources": [{"name": "one", "adapter": "one"}]},
        "seeds": SEEDS,
        "systems": SYSTEMS,
        "against": "base",
        "metrics": ["rouge_l", "bleu"],
        "draws": DRAWS,
    }
    (folder / "exp.yaml").write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return read_experiment(folder / "exp.yaml")


def lines(cell: Cell, count: int = 7, grouped: bool = False) -> list[dict[str, Any]]:
    """What a cell may have answered; the same examples for all."""
    draw = np.random.default_rng([cell.seed, *cell.system.encode()])
    quality = {"base": 0.4, "good": 0.8, "bad": 0.5}[cell.system]
    found = []
    for place in range(count):
        target = TEXT.split()[place : place + 9]
        text = " ".join(word if draw.random() < quality else "other" for word in target)
        system = cell.only or "pomona"
        line = {"id": f"e{place}", "document": f"d{place}", "prompt": "p", "references": [" ".join(target)]}
        line |= {"predictions": {system: text}, "losses": {system: float(draw.normal(3 - quality, 0.5))}}
        found.append(line | ({"group": f"g{place // 2}"} if grouped else {}))
    return found


def run(folder: Path, cell: Cell, content: list[dict[str, Any]], **changes: Any) -> None:
    place = folder / cell.path
    place.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "status": "done", "name": cell.path, "started": "", "recipe": {}, "environment": {}, "fingerprints": {}, "model": "m",
        "task": "t", "primary_metric": "rouge_l", "splits": {}, "prune_ratio": None if cell.only else 0.1 * cell.seed,
        "sparsity": None if cell.only else 0.09 * cell.seed,
        "timing": Timing(train_seconds=10.0 * cell.seed, probe_seconds=1.0, total_seconds=100.0),
    }  # fmt: skip
    (place / "record.json").write_text(RunRecord(**(values | changes)).model_dump_json())
    (place / "predictions.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content))


def filled(folder: Path, grouped: bool = False, **changes: Any) -> tuple[Experiment, list[Cell]]:
    experiment, cells = written(folder, **changes)
    for cell in cells:
        run(folder, cell, lines(cell, grouped=grouped))
    return experiment, cells


def losses(folder: Path, system: str, seed: int) -> list[float]:
    text = (folder / f"{system}-{seed}" / "predictions.jsonl").read_text()
    return [next(iter(json.loads(line)["losses"].values())) for line in text.splitlines()]


def answers(folder: Path, system: str, seed: int) -> tuple[list[str], list[str]]:
    parsed = [json.loads(line) for line in (folder / f"{system}-{seed}" / "predictions.jsonl").read_text().splitlines()]
    return [next(iter(line["predictions"].values())) for line in parsed], [line["references"][0] for line in parsed]


def test_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    experiment, cells = filled(tmp_path)
    (setting,) = gather(experiment, cells, tmp_path).settings.values()
    for system in SYSTEMS:
        of_seeds = [statistics.fmean(losses(tmp_path, system, seed)) for seed in SEEDS]
        loss = setting.metrics["loss"][system]
        assert loss.values == pytest.approx(of_seeds, abs=1e-12)
        assert loss.mean == pytest.approx(sum(of_seeds) / 3, abs=1e-12)
        centre = sum(of_seeds) / 3
        assert loss.deviation == pytest.approx(math.sqrt(sum((one - centre) ** 2 for one in of_seeds) / 2), abs=1e-12)
        assert (loss.seeds, loss.missing, loss.examples) == (3, 0, 7)
        scores = [sacrebleu.corpus_bleu(texts, [gold]).score for texts, gold in (answers(tmp_path, system, s) for s in SEEDS)]
        assert setting.metrics["bleu"][system].values == pytest.approx(scores, abs=1e-9)
        assert setting.metrics["bleu"][system].mean == pytest.approx(statistics.fmean(scores), abs=1e-9)
    assert list(setting.metrics) == ["rouge_l", "bleu", "loss"]
    assert setting.signatures["bleu"].startswith("nrefs:1|")


@pytest.mark.parametrize("grouped", [False, True], ids=["single", "grouped"])
def test_intervals_draw_an_example_with_all_its_seeds(tmp_path: Path, grouped: bool) -> None:
    """A mean over examples has the interval of its rows pooled over seeds, clustered by example or group."""
    experiment, cells = filled(tmp_path, grouped=grouped)
    (setting,) = gather(experiment, cells, tmp_path).settings.values()
    clusters = [f"g{place // 2}" if grouped else f"e{place}" for place in range(7)] * 3
    for system in SYSTEMS:
        pooled = np.array([[loss] for seed in SEEDS for loss in losses(tmp_path, system, seed)])
        expected = interval(pooled, MeanLoss(), DRAWS, generator=stream(SEEDS[0], "bootstrap"), groups=clusters)
        found = setting.metrics["loss"][system]
        assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=1e-12)
        base = np.array([[loss] for seed in SEEDS for loss in losses(tmp_path, "base", seed)])
        if system != "base":
            told = paired_difference(pooled, base, MeanLoss(), DRAWS, generator=stream(SEEDS[0], "compare"), groups=clusters)
            contrast = setting.metrics["loss"][system].contrast
            assert contrast is not None
            got = (contrast.difference, contrast.low, contrast.high, contrast.p_value)
            assert got == pytest.approx(tuple(told), abs=1e-12)


def shifted(folder: Path, cells: list[Cell], shifts: dict[int, float]) -> None:
    """Cells whose losses differ by seed: those of `good` are the others' less 0.5, moved by the seed's shift."""
    draw = np.random.default_rng(7)
    common = draw.normal(3, 1, 7)
    for cell in cells:
        own = draw.normal(0, 0.1, 7)
        moved = common + own + (shifts[cell.seed] - 0.5 if cell.system == "good" else 0.0)
        content = [
            line | {"losses": dict.fromkeys(line["losses"], float(one))} for line, one in zip(lines(cell), moved, strict=True)
        ]
        run(folder, cell, content)


def test_runs_that_differ_widen_the_interval_and_raise_the_p_value(tmp_path: Path) -> None:
    """The paired differences of three seeds by hand: two-way means of squares, half of the shared variance in the degrees."""
    experiment, cells = written(tmp_path)
    shifted(tmp_path, cells, {3: -0.6, 1: 0.1, 4: 0.7})
    (setting,) = gather(experiment, cells, tmp_path).settings.values()
    contrast = setting.metrics["loss"]["good"].contrast
    assert contrast is not None
    assert contrast.holds_for == "new_seeds"
    values_KN = np.array([np.subtract(losses(tmp_path, "good", seed), losses(tmp_path, "base", seed)) for seed in SEEDS])
    runs, examples = values_KN.mean(axis=1), values_KN.mean(axis=0)
    rest = values_KN - runs[:, None] - examples + values_KN.mean()
    seeds_part = float(np.var(runs, ddof=1)) / 3
    shared = max(0.0, float(np.var(examples, ddof=1)) / 7 - float((rest**2).sum()) / 12 / 3 / 7)
    error = math.sqrt(seeds_part + shared)
    of_runs, of_examples = (seeds_part / (seeds_part + shared / 2)) ** 2 / 2, (shared / error**2) ** 2 / 6
    degrees = 1 / (of_runs + of_examples)
    mean = float(values_KN.mean())
    assert contrast.difference == pytest.approx(mean, abs=1e-12)
    assert (contrast.low, contrast.high) == pytest.approx(scipy_stats.t.interval(0.95, degrees, mean, error), rel=1e-8)
    assert contrast.p_value == pytest.approx(2 * scipy_stats.t.sf(abs(mean) / error, degrees), rel=1e-8)
    these = paired_difference(
        values_KN.mean(axis=0)[:, None], np.zeros((7, 1)), MeanLoss(), DRAWS, generator=stream(SEEDS[0], "compare")
    )
    assert contrast.high - contrast.low > 2 * (these.high - these.low)
    assert contrast.p_value > 0.3 > 0.05 > these.p_value


def test_one_seed_answers_for_these_runs_and_the_table_says_so(tmp_path: Path) -> None:
    experiment, cells = written(tmp_path)
    shifted(tmp_path, cells, {3: -0.6, 1: 0.1, 4: 0.7})
    for cell in cells:
        if (cell.system == "bad" and cell.seed != 3) or (cell.system == "base" and cell.seed == 3):
            (tmp_path / cell.path / "record.json").unlink()
    found = gather(experiment, cells, tmp_path)
    scores = found.settings["default"].metrics["loss"]
    assert [scores[system].holds_for for system in ("base", "good", "bad")] == ["new_seeds", "new_seeds", "these_runs"]
    rows = {
        line.split("|")[1].strip(): line
        for line in table(found).split("### loss")[1].split("### cost")[0].splitlines()
        if "|" in line
    }
    assert rows["good"].strip("| ").endswith("|  new seeds")
    assert rows["bad"].strip("| ").endswith("| these runs")
    assert scores["bad"].contrast is None
    for cell in cells:
        if cell.seed == 4:
            (tmp_path / cell.path / "record.json").unlink(missing_ok=True)
    (tmp_path / "good-4").joinpath("predictions.jsonl").unlink()
    found = gather(experiment, cells, tmp_path)
    contrast = found.settings["default"].metrics["loss"]["good"].contrast
    assert contrast is not None
    assert (contrast.seeds, contrast.holds_for) == (1, "these_runs")
    text = table(found)
    assert "| new seeds; difference: these runs |" in text
    assert "One that holds for these runs covers other test examples only" in text


def test_an_interval_for_new_seeds_stays_within_what_the_metric_can_reach(tmp_path: Path) -> None:
    experiment, cells = written(tmp_path)
    shifted(tmp_path, cells, {3: -2.6, 1: 0.1, 4: 0.7})
    for cell in cells:
        content = lines(cell)
        for place, line in enumerate(content):
            right = cell.system != "good" or cell.seed != 3 or place > 3
            line["predictions"] = dict.fromkeys(line["predictions"], line["references"][0] if right else "other")
            line["losses"] = dict.fromkeys(line["losses"], 0.01 if right else 3.0)
        run(tmp_path, cell, content)
    metrics_of = gather(experiment, cells, tmp_path).settings["default"].metrics
    assert metrics_of["rouge_l"]["good"].high == 100.0
    assert metrics_of["loss"]["good"].low == 0.0


def test_p_values_by_every_exchange_and_holm_by_hand(tmp_path: Path) -> None:
    """Seven examples have 128 exchanges, fewer than the draws, so p is exact."""
    experiment, cells = filled(tmp_path)
    (setting,) = gather(experiment, cells, tmp_path).settings.values()
    p_values = {}
    for system in ("good", "bad"):
        per_example = [
            sum(losses(tmp_path, system, seed)[place] - losses(tmp_path, "base", seed)[place] for seed in SEEDS) / 3
            for place in range(7)
        ]
        seen = abs(sum(per_example)) - 1e-9
        signs = itertools.product((1, -1), repeat=7)
        extreme = sum(abs(sum(s * one for s, one in zip(flips, per_example, strict=True))) >= seen for flips in signs)
        p_values[system] = extreme / 128
        contrast = setting.metrics["loss"][system].contrast
        assert contrast is not None
        assert contrast.difference == pytest.approx(sum(per_example) / 7, abs=1e-12)
        assert contrast.p_value == p_values[system]
        assert (contrast.seeds, contrast.examples) == (3, 7)
    low, high = sorted(p_values, key=lambda system: p_values[system])
    assert p_values[low] < p_values[high]
    adjusted = {system: score.contrast.p_holm for system, score in setting.metrics["loss"].items() if score.contrast}
    assert adjusted == {low: min(1.0, 2 * p_values[low]), high: max(2 * p_values[low], p_values[high])}
    assert setting.metrics["loss"]["base"].contrast is None


def test_a_corpus_metric_is_the_mean_of_the_seeds_scores_in_every_draw(tmp_path: Path) -> None:
    """BLEU of three seeds pooled is not the mean of their three BLEUs; a draw must give the latter."""
    experiment, cells = filled(tmp_path)
    (setting,) = gather(experiment, cells, tmp_path).settings.values()
    texts, gold = zip(*(answers(tmp_path, "good", seed) for seed in SEEDS), strict=True)
    picks = np.random.default_rng(0).integers(7, size=(5, 7))
    tables = [rows(list(one), [[text] for text in theirs], [math.nan] * 7, Bleu()) for one, theirs in zip(texts, gold, strict=True)]
    there = [one for one in tables if one is not None]
    side_by_side = joined(there, [one.scored for one in there], np.ones(7, dtype=bool))
    for pick in picks:
        drawn = SeedMean(Bleu(), 3).aggregate(side_by_side[pick].sum(axis=0, keepdims=True), np.array([7.0]))
        each = [
            sacrebleu.corpus_bleu([one[place] for place in pick], [[theirs[place] for place in pick]]).score
            for one, theirs in zip(texts, gold, strict=True)
        ]
        assert float(drawn[0]) == pytest.approx(statistics.fmean(each), abs=1e-9)
    found = setting.metrics["bleu"]["good"]
    assert found.low is not None
    assert found.high is not None
    assert found.mean is not None
    assert found.low < found.mean < found.high


def test_what_lacks_is_left_out_and_counted(tmp_path: Path) -> None:
    """A cell that failed, one that was never run, an answer and a loss that are not known."""
    experiment, cells = filled(tmp_path)
    by_path = {cell.path: cell for cell in cells}
    run(tmp_path, by_path["good-1"], lines(by_path["good-1"]), status="failed", error="PomonaError: the loss is not finite")
    (tmp_path / "good-4" / "record.json").unlink()
    hurt = lines(by_path["bad-3"])
    hurt[2]["predictions"]["pomona"] = None
    hurt[5]["losses"]["pomona"] = None
    run(tmp_path, by_path["bad-3"], hurt)
    found = gather(experiment, cells, tmp_path)
    (setting,) = found.settings.values()
    good, bad = setting.metrics["loss"]["good"], setting.metrics["loss"]["bad"]
    assert (good.seeds, good.missing, good.values[1], good.values[2], good.deviation) == (1, 2, None, None, None)
    assert good.mean == pytest.approx(statistics.fmean(losses(tmp_path, "good", 3)), abs=1e-12)
    assert good.contrast is not None
    assert good.contrast.seeds == 1
    alone = statistics.fmean(losses(tmp_path, "good", 3)) - statistics.fmean(losses(tmp_path, "base", 3))
    assert good.contrast.difference == pytest.approx(alone, abs=1e-12)
    known = [loss for loss in losses(tmp_path, "bad", 3) if loss is not None]
    assert len(known) == 6
    assert bad.values[0] == pytest.approx(statistics.fmean(known), abs=1e-12)
    assert bad.examples == 7
    pairs = [(a, b) for a, b in zip(losses(tmp_path, "bad", 3), losses(tmp_path, "base", 3), strict=True) if a is not None]
    of_seeds = [statistics.fmean(a - b for a, b in pairs)]
    of_seeds += [statistics.fmean(losses(tmp_path, "bad", s)) - statistics.fmean(losses(tmp_path, "base", s)) for s in (1, 4)]
    assert bad.contrast is not None
    assert bad.contrast.difference == pytest.approx(statistics.fmean(of_seeds), abs=1e-12)
    texts, gold = answers(tmp_path, "bad", 3)
    kept = [(text, theirs) for text, theirs in zip(texts, gold, strict=True) if text is not None]
    assert len(kept) == 6
    score = sacrebleu.corpus_bleu([text for text, _ in kept], [[theirs for _, theirs in kept]]).score
    assert setting.metrics["bleu"]["bad"].values[0] == pytest.approx(score, abs=1e-9)
    text = table(found)
    assert "7 of 9 cells are done; seeds 3, 1, 4." in text
    assert "- good-1: failed, PomonaError: the loss is not finite\n- good-4: missing" in text
    assert "| good   | 1 of 3 |" in text
    assert setting.costs["good"].prune_ratio == pytest.approx(0.3)


def test_a_system_without_any_cell_has_no_figures(tmp_path: Path) -> None:
    experiment, cells = written(tmp_path)
    for cell in cells:
        if cell.system != "base":
            run(tmp_path, cell, lines(cell))
    found = gather(experiment, cells, tmp_path)
    (setting,) = found.settings.values()
    base = setting.metrics["loss"]["base"]
    assert (base.mean, base.low, base.seeds, base.missing) == (None, None, 0, 3)
    assert setting.metrics["loss"]["good"].mean is not None
    assert setting.metrics["loss"]["good"].contrast is None
    assert "| base   | 0 of 3 |" in table(found)
    nothing = gather(experiment, cells, tmp_path / "empty")
    assert {cell.status for cell in nothing.cells} == {"missing"}
    assert nothing.total_seconds == 0


def test_costs_are_means_of_the_cells(tmp_path: Path) -> None:
    experiment, cells = filled(tmp_path)
    found = gather(experiment, cells, tmp_path)
    (setting,) = found.settings.values()
    cost = setting.costs["good"]
    assert (cost.prune_ratio, cost.sparsity) == pytest.approx((0.1 * 8 / 3, 0.09 * 8 / 3))
    assert cost.train_seconds == pytest.approx(1 + 80 / 3)
    assert setting.costs["base"].prune_ratio is None
    assert found.total_seconds == 900
    assert "All cells together took 900.0 s." in table(found)


def test_a_cell_without_a_round_has_the_starting_ratio_and_the_table_says_so(tmp_path: Path) -> None:
    experiment, cells = filled(tmp_path)
    assert "No controller round" not in table(gather(experiment, cells, tmp_path))
    answer = Answer(controller="grasp", prune_ratio=0.4, low=0.1, high=0.8, flat=True)
    for cell in cells:
        if cell.system == "bad" and cell.seed != 4:
            run(tmp_path, cell, lines(cell), answer=answer)
    found = gather(experiment, cells, tmp_path)
    assert [cell.path for cell in found.cells if cell.learned_nothing] == ["bad-3", "bad-1"]
    assert "No controller round took place in bad-3, bad-1: the prune ratio there is the start value." in table(found)


def test_settings_are_apart(tmp_path: Path) -> None:
    experiment, cells = written(tmp_path, settings={"a": {}, "b": {"tuning.epochs": 2}})
    for cell in cells:
        content = lines(cell)
        if cell.setting == "b":
            content = [line | {"id": f"other {line['id']}", "losses": dict.fromkeys(line["losses"], 2.5)} for line in content]
        run(tmp_path, cell, content)
    found = gather(experiment, cells, tmp_path)
    assert list(found.settings) == ["a", "b"]
    assert found.settings["b"].metrics["loss"]["good"].mean == 2.5
    assert found.settings["a"].metrics["loss"]["good"].mean != 2.5
    text = table(found)
    assert text.index("## a\n") < text.index("## b\n")


def test_the_table_equals_the_record(tmp_path: Path) -> None:
    experiment, cells = filled(tmp_path)
    found = gather(experiment, cells, tmp_path)
    text = table(found)
    loss = found.settings["default"].metrics["loss"]["good"]
    assert loss.contrast is not None
    row = next(line for line in text[text.index("### loss") :].splitlines() if line.startswith("| good"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "good", "3", f"{loss.mean:.4f}", f"{loss.deviation:.4f}", f"{loss.low:.4f} to {loss.high:.4f}",
        f"{loss.contrast.difference:+.4f}", f"{loss.contrast.low:+.4f} to {loss.contrast.high:+.4f}",
        f"{loss.contrast.p_value:.4f}", f"{loss.contrast.p_holm:.4f}", "new seeds",
    ]  # fmt: skip
    assert len({len(line) for line in text[text.index("### loss") : text.index("### cost")].splitlines() if line[:1] == "|"}) == 1
    assert ExperimentRecord.model_validate_json(found.model_dump_json()) == found
    unpaired = gather(*written(tmp_path, against=None), tmp_path)
    assert "Holm" not in table(unpaired)
    assert all(score.contrast is None for score in unpaired.settings["default"].metrics["loss"].values())


def test_what_does_not_vary_shows_no_interval(tmp_path: Path) -> None:
    experiment, cells = written(tmp_path)
    for cell in cells:
        run(tmp_path, cell, [line | {"losses": dict.fromkeys(line["losses"], 2.0)} for line in lines(cell)])
    text = table(gather(experiment, cells, tmp_path))
    row = next(line for line in text[text.index("### loss") :].splitlines() if line.startswith("| good"))
    assert [cell.strip() for cell in row.strip("|").split("|")][:7] == ["good", "3", "2.0000", "0.0000", "-", "+0.0000", "-"]


def test_texts_with_line_ends_of_unicode_are_one_line(tmp_path: Path) -> None:
    experiment, cells = written(tmp_path)
    for cell in cells:
        content = lines(cell)
        content[0]["predictions"] = dict.fromkeys(content[0]["predictions"], "a\u2028b\x85c")
        run(tmp_path, cell, content)
    assert gather(experiment, cells, tmp_path).settings["default"].metrics["loss"]["good"].examples == 7


def test_cells_that_answered_other_examples_are_refused(tmp_path: Path) -> None:
    experiment, cells = filled(tmp_path)
    run(tmp_path, cells[4], lines(cells[4], count=6))
    with pytest.raises(InputError, match="good-1: has other test examples than base-3"):
        gather(experiment, cells, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "e0"', "cannot be read"),
        ('{"id": "e0", "references": ["x"], "predictions": {"pomona": "x"}}', "no 'losses'"),
        ('{"id": "e0", "references": ["x"], "predictions": {"zero_shot": "x"}, "losses": {}}', "no 'pomona'"),
        ("[]", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_name_the_cell(tmp_path: Path, content: str, message: str) -> None:
    experiment, cells = filled(tmp_path)
    (tmp_path / "good-1" / "predictions.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"good-1/predictions\.jsonl") as caught:
        gather(experiment, cells, tmp_path)
    assert message in str(caught.value)


def test_seed_mean_leaves_out_a_seed_that_a_draw_has_no_example_of() -> None:
    only_first = Rows(np.array([[2.0], [0.0]]), np.array([True, False]))
    both = Rows(np.array([[4.0], [6.0]]), np.array([True, True]))
    table_NX = joined([only_first, both], [only_first.scored, both.scored], np.array([True, True]))
    metric = SeedMean(MeanLoss(), 2)
    sums = np.stack([table_NX[0], table_NX[1], table_NX[0] + 3 * table_NX[1]])
    assert metric.aggregate(sums, np.array([1.0, 1.0, 4.0])).tolist() == [3.0, 6.0, (2.0 + 22 / 4) / 2]
    assert "rouge_l" in metrics
    with pytest.raises(TypeError, match="does not come from one prediction"):
        metric.statistics("x", ["x"])
