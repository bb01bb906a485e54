from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from pomona.comparison import Comparison
from pomona.ratios import Answer, GroupRatio
from pomona.report.card import model_card
from pomona.report.controls import CONTROLS
from pomona.report.figures.ratio import fitted_curve
from pomona.report.figures.trials import score_by_ratio
from pomona.report.pruning_tables import groups_table
from pomona.report.questions import how_sure
from pomona.report.sentences import how_good, three_sentences, what_was_run, whether_pruning_helped
from pomona.report.tables import descriptions_table, headline
from pomona.report.wording import MINUS
from pomona.runs.record import PoolRecord, RankedSource, RunRecord


def with_comparison(
    record: RunRecord, baseline: str, difference: float, low: float, high: float, p_holm: float | None = None
) -> RunRecord:
    """The record with Pomona's primary difference to `baseline` replaced."""
    kept = [found for found in record.comparisons if (found.system, found.baseline) != ("pomona", baseline)]
    made = Comparison(
        system="pomona",
        baseline=baseline,
        metric=record.primary_metric,
        difference=difference,
        low=low,
        high=high,
        p_value=0.01,
        n=100,
        p_holm=p_holm,
    )
    return record.model_copy(update={"comparisons": [*kept, made]})


def without(record: RunRecord, baseline: str) -> RunRecord:
    return record.model_copy(update={"comparisons": [found for found in record.comparisons if found.baseline != baseline]})


def test_a_finished_run_in_full(record: RunRecord):
    first, second, third = three_sentences(record)
    assert first == (
        "Pomona merged 2 adapters (stdlib and torch) on HuggingFaceTB/SmolLM2-135M-Instruct for the task summarization, "
        "fine-tuned the merge on 50 training examples, and tested the result on 100 held-out test examples."
    )
    assert second == (
        "The result's ROUGE-L is 27.1 of 100 points on 100 test examples: 18.4 points better than Zero shot, very unlikely to be "
        "chance; no clear difference from Target LoRA (1.9 points better, which may be chance)."
    )
    assert how_sure(record) == (
        "How sure: ROUGE-L 27.1, 95% interval 24.0 to 30.3; against Zero shot +18.4 points (95% interval 16.3 to 20.4, excludes 0, "
        f"corrected p = 0.004); against Target LoRA +1.9 points (95% interval {MINUS}0.2 to 3.9, includes 0). Both systems "
        "answered the same 100 test examples. A difference counts if its interval excludes 0 and its p, corrected for 11 "
        "comparisons, is at most 0.05. This covers other test examples, not other training seeds."
    )
    assert third == (
        "The run learned a prune ratio of 32% (95% interval 21 to 46%); compared with the same merge fine-tuned without "
        f"pruning, pruning did not significantly change ROUGE-L (paired difference +0.3 points, 95% interval {MINUS}1.8 to 2.3, "
        "includes 0): use the unpruned merge, unless you need the zeros themselves."
    )


@pytest.mark.parametrize(
    ("interval", "says", "never"),
    [
        ((4.0, 1.0, 7.0), "4.0 points better than Target LoRA", "worse"),
        ((-4.0, -7.0, -1.0), "4.0 points worse than Target LoRA", "significantly"),
        ((4.0, -0.1, 8.1), "no clear difference from Target LoRA (4.0 points better, which may be chance)", "unlikely"),
        ((-4.0, -8.0, 0.0), "no clear difference from Target LoRA (4.0 points worse, which may be chance)", "unlikely"),
        ((0.0, -2.0, 2.0), "no difference from Target LoRA", "chance"),
    ],
)
def test_better_and_worse_only_where_the_interval_excludes_zero(
    record: RunRecord, interval: tuple[float, float, float], says: str, never: str
):
    text = how_good(with_comparison(record, "target_lora", *interval))
    about_target = text[text.index("; ") :]
    assert says in about_target
    assert never not in about_target


@pytest.mark.parametrize(
    ("interval", "says", "advice"),
    [
        ((1.5, 0.4, 2.6), "pruning improved ROUGE-L (paired difference +1.5 points", "use the pruned adapter."),
        ((-1.5, -2.6, -0.4), f"pruning worsened ROUGE-L (paired difference {MINUS}1.5 points", "use the unpruned merge."),
        ((1.5, -0.4, 3.4), "did not significantly change ROUGE-L", "use the unpruned merge, unless you need the zeros"),
    ],
)
def test_advice_on_pruning_follows_the_unpruned_merge(
    record: RunRecord, interval: tuple[float, float, float], says: str, advice: str
):
    text = whether_pruning_helped(with_comparison(record, "merge_finetune", *interval))
    assert says in text
    assert advice in text
    assert text.count("use the") == 1


@pytest.mark.parametrize(
    ("p_holm", "sure", "says"),
    [
        (None, "unlikely to be chance", "excludes 0)"),
        (0.0009, "almost certainly not by chance", "excludes 0, corrected p <\xa00.001)"),
        (0.009, "very unlikely to be chance", "excludes 0, corrected p = 0.009)"),
        (0.05, "unlikely to be chance", "excludes 0, corrected p = 0.050)"),
        (0.11, "which may be chance, since several comparisons were made", "excludes 0, corrected p = 0.110 for 11 comparisons)"),
    ],
)
def test_how_sure_is_in_words_and_the_test_below(record: RunRecord, p_holm: float | None, sure: str, says: str):
    changed = with_comparison(record, "target_lora", 1.9, 0.2, 3.9, p_holm)
    assert how_good(changed).endswith(f"; 1.9 points better than Target LoRA, {sure}.")
    assert f"against Target LoRA +1.9 points (95% interval 0.2 to 3.9, {says}" in how_sure(changed)


@pytest.mark.parametrize(
    ("interval", "says", "advice"),
    [
        (
            (1.5, 0.4, 2.6),
            "pruning improved ROUGE-L, but this may be chance (",
            "use the unpruned merge, unless you need the zeros",
        ),
        ((-1.5, -2.6, -0.4), "pruning worsened ROUGE-L, but this may be chance (", "use the unpruned merge."),
        ((0.5, -0.4, 1.4), "did not significantly change ROUGE-L", "use the unpruned merge, unless you need the zeros"),
    ],
)
def test_pruning_is_not_advised_on_what_may_be_chance(
    record: RunRecord, interval: tuple[float, float, float], says: str, advice: str
):
    text = whether_pruning_helped(with_comparison(record, "merge_finetune", *interval, p_holm=0.3))
    assert says in text
    assert advice in text
    assert ("corrected p = 0.300 for 11 comparisons" in text) == (interval[0] != 0.5)
    assert "use the pruned adapter" in whether_pruning_helped(with_comparison(record, "merge_finetune", 1.5, 0.4, 2.6, 0.02))


def test_an_interval_without_spread_decides_nothing(record: RunRecord):
    changed = with_comparison(record, "target_lora", 4.0, 4.0, 4.0, 0.01)
    assert how_good(changed).endswith("no clear difference from Target LoRA (4.0 points better, which may be chance).")
    assert "against Target LoRA +4.0 points (95% interval unknown)" in how_sure(changed)


def test_a_score_of_fewer_examples_says_so(record: RunRecord):
    metrics = {**record.metrics, "pomona": {"rouge_l": record.metrics["pomona"]["rouge_l"].model_copy(update={"n": 97})}}
    assert "27.1 of 100 points on 97 of 100 test examples:" in how_good(record.model_copy(update={"metrics": metrics}))


def test_an_older_record_s_sentences_speak_of_no_correction(older: RunRecord):
    assert three_sentences(older)[1] == (
        "The result's ROUGE-L is 27.1 of 100 points on 100 test examples: 18.4 points better than Zero shot, almost certainly not "
        "by chance; no clear difference from Target LoRA (1.9 points better, which may be chance)."
    )
    assert "corrected" not in how_sure(older)


def test_a_loss_is_better_when_lower(record: RunRecord):
    metrics = {system: {"loss": found["loss"]} for system, found in record.metrics.items()}
    lossy = record.model_copy(update={"primary_metric": "loss", "metrics": metrics, "comparisons": []})
    lossy = with_comparison(lossy, "zero_shot", -0.71, -0.80, -0.62)
    text = how_good(lossy)
    assert "The result's test loss is 3.158 (lower is better) on 100 test examples: " in text
    assert "0.710 nats better than Zero shot" in text


def test_a_flat_curve_is_reported(record: RunRecord):
    assert record.answer is not None
    flat = record.model_copy(update={"answer": dataclasses.replace(record.answer, flat=True)})
    assert "the curve is flat: the micro dev set shows no significant difference between the ratios" in whether_pruning_helped(flat)
    assert "flat" not in whether_pruning_helped(record)


def without_rounds(record: RunRecord, **changes: Any) -> RunRecord:
    answer = Answer(controller="grasp", prune_ratio=0.4, low=0.1, high=0.8, flat=True)
    return record.model_copy(update={"answer": dataclasses.replace(answer, **changes), "rounds": []})


def test_a_run_without_a_round_has_learned_nothing(record: RunRecord):
    text = whether_pruning_helped(without_rounds(record))
    assert text.startswith(
        "No controller round took place, so nothing was learned: the prune ratio, 40%, is the start value; compared with"
    )
    assert "interval 10" not in text
    assert "No controller round took place, so nothing was learned" in model_card(without_rounds(record))
    group = GroupRatio(first_layer=0, last_layer=4, prune_ratio=0.4, low=0.1, high=0.8)
    assert "the prune ratio, 40% on average over 2 groups of layers, is the start value" in whether_pruning_helped(
        without_rounds(record, by_group=[group, group])
    )
    assert whether_pruning_helped(without_rounds(record, prune_ratio=0.0)).endswith(
        "the prune ratio, 0%, is the start value; nothing was pruned, so the result is the unpruned fine-tuned merge."
    )


@pytest.mark.parametrize(
    ("low", "high", "allowed", "says"),
    [
        (
            0.1,
            0.46,
            (0.1, 0.8),
            "95% interval 10 to 46%; it ends at the lower bound of the allowed range, 10 to 80%, so the best ratio may be lower)",
        ),
        (0.21, 0.8, (0.1, 0.8), "; it ends at the upper bound of the allowed range, 10 to 80%, so the best ratio may be higher)"),
        (
            0.1,
            0.8,
            (0.1, 0.8),
            "; it ends at both bounds of the allowed range, 10 to 80%, so the best ratio may be lower or higher)",
        ),
        (0.21, 0.46, (0.1, 0.8), "(95% interval 21 to 46%)"),
        (0.0, 0.46, (0.0, 0.8), "(95% interval 0 to 46%; 0% is no pruning)"),
        (0.5, 1.0, (0.1, 1.0), "(95% interval 50 to 100%)"),
    ],
)
def test_an_interval_that_ends_at_a_bound_says_so(
    record: RunRecord, low: float, high: float, allowed: tuple[float, float], says: str
):
    assert record.answer is not None
    controller = {"name": "grasp", "prune_ratio_min": allowed[0], "prune_ratio_max": allowed[1]}
    answer = dataclasses.replace(record.answer, low=low, high=high)
    changed = record.model_copy(update={"answer": answer, "recipe": record.recipe | {"controller": controller}})
    assert says in whether_pruning_helped(changed)
    (tile,) = [one for one in headline(changed) if one.label == "Prune ratio"]
    figure = fitted_curve(changed)
    assert figure is not None
    assert ("bound" in tile.note) == ("bound" in figure.caption) == ("bound" in says)


def test_an_interval_of_a_group_that_ends_at_a_bound_is_reported(record: RunRecord):
    groups = [GroupRatio(first_layer=0, last_layer=4, prune_ratio=0.2, low=low, high=0.5) for low in (0.1, 0.15)]
    assert record.answer is not None
    controller = {"name": "layerwise", "prune_ratio_min": 0.1, "prune_ratio_max": 0.8}
    answer = dataclasses.replace(record.answer, by_group=groups)
    changed = record.model_copy(update={"answer": answer, "recipe": record.recipe | {"controller": controller}})
    assert "; the interval of a group ends at the lower bound of the allowed range, 10 to 80%" in whether_pruning_helped(changed)
    assert groups_table(changed).note.endswith(
        "An interval ends at the lower bound of the allowed range, 10 to 80%, so the best ratio may be lower."
    )
    empty = groups_table(without_rounds(record, by_group=groups))
    assert empty.note.endswith("No round took place: the ratios are the start values, and the intervals are the allowed range.")
    (tile,) = [one for one in headline(without_rounds(record)) if one.label == "Prune ratio"]
    assert tile.note == "the start value; no round took place"


def test_the_best_of_whole_runs_at_the_end_of_the_tried(grid: Callable[..., RunRecord]):
    record = grid(low=0.1, high=0.1)
    assert record.answer is not None
    sure = record.model_copy(update={"answer": dataclasses.replace(record.answer, prune_ratio=0.1)})
    assert (
        "significantly worse on the dev set; the best is the lowest ratio that was tried, so the best ratio may be lower; compared"
        in (whether_pruning_helped(sure))
    )
    figure = score_by_ratio(sure)
    assert figure is not None
    assert figure.caption.endswith("The best is the lowest ratio that was tried, so the best ratio may be lower.")


def test_missing_baselines_are_reported(record: RunRecord):
    assert how_good(without(record, "target_lora")).endswith("unlikely to be chance; it was not compared with target LoRA.")
    neither = how_good(without(without(record, "target_lora"), "zero_shot"))
    assert neither == (
        "The result's ROUGE-L is 27.1 of 100 points on 100 test examples; it was not compared with zero shot or target LoRA."
    )
    unknown = whether_pruning_helped(without(record, "merge_finetune"))
    assert unknown.endswith("the same merge was not evaluated without pruning, so the effect of pruning is unknown.")
    assert "use the" not in unknown


def test_a_given_ratio_is_not_called_learned(record: RunRecord):
    given = record.model_copy(update={"answer": Answer(controller="fixed", prune_ratio=0.5, low=0.5, high=0.5, flat=False)})
    assert whether_pruning_helped(given).startswith("The prune ratio was given, not learned: 50%; ")
    no_answer = record.model_copy(update={"answer": None, "prune_ratio": 0.25})
    assert whether_pruning_helped(no_answer).startswith("The prune ratio was given, not learned: 25%; ")


def test_a_ratio_of_zero_is_no_pruning(record: RunRecord):
    none = record.model_copy(update={"answer": Answer(controller="fixed", prune_ratio=0, low=0, high=0, flat=False)})
    assert whether_pruning_helped(none) == (
        "The prune ratio was given, not learned: 0%; nothing was pruned, so the result is the unpruned fine-tuned merge."
    )


@pytest.mark.parametrize(
    ("status", "says"), [("running", "has not finished"), ("interrupted", "was interrupted"), ("failed", "failed")]
)
def test_an_unfinished_run_claims_nothing(record: RunRecord, status: str, says: str):
    parts = {"status": status, "metrics": {}, "comparisons": [], "answer": None, "prune_ratio": None, "sparsity": None}
    first, second, third = three_sentences(record.model_copy(update={**parts, "rounds": record.rounds[:4]}))
    assert first.startswith(f"This run {says}, so nothing here is a final result: the plan is to merge 2 adapters")
    assert second == "The result has no score on the test set, so its quality is unknown."
    assert third == (
        "The run did not settle on a prune ratio; after 4 rounds the ratio in force was 30%, and the effect of pruning is unknown."
    )
    early = three_sentences(record.model_copy(update={**parts, "rounds": []}))
    assert early[2] == "The run did not settle on a prune ratio, so the effect of pruning is unknown."


def test_missing_sources_and_splits(record: RunRecord):
    bare = record.model_copy(update={"sources": [], "splits": {}})
    assert what_was_run(bare) == (
        "Pomona merged no source adapters on HuggingFaceTB/SmolLM2-135M-Instruct for the task summarization, fine-tuned the merge "
        "on an unknown number of training examples, and tested the result on an unknown number of held-out test examples."
    )


@pytest.mark.parametrize(
    ("low", "high", "flat", "start"),
    [
        (
            0.2,
            0.5,
            False,
            "Of the 8 prune ratios that were tried, 30% is the best by dev loss (95% interval 20 to 50%); compared with the",
        ),
        (
            0.1,
            0.8,
            True,
            "30% is the best by dev loss (95% interval 10 to 80%; it ends at the lowest and at the highest ratio that was tried, "
            "so the best ratio may be lower or higher), but the curve is flat: the dev set shows no significant difference",
        ),
        (0.3, 0.3, False, "30% is the best by dev loss, and every other ratio is significantly worse on the dev set; compared"),
    ],
)
def test_the_best_of_whole_runs_is_not_called_learned(
    grid: Callable[..., RunRecord], low: float, high: float, flat: bool, start: str
):
    record = grid(low=low, high=high)
    assert record.answer is not None
    text = whether_pruning_helped(record.model_copy(update={"answer": dataclasses.replace(record.answer, flat=flat)}))
    assert start in text
    assert "learned" not in text
    assert "given" not in text
    assert "micro" not in text


def test_whole_runs_that_a_metric_judged(grid: Callable[..., RunRecord]):
    assert "30% is the best by ROUGE-L on the dev set (95%" in whether_pruning_helped(grid(select_by="rouge_l"))


@pytest.mark.parametrize(
    ("granularity", "reset", "end"),
    [
        ("parameter", "zero", "use the unpruned merge, unless you need the zeros themselves."),
        ("rank", "zero", "use the unpruned merge, unless you need a smaller adapter."),
        ("module", "zero", "use the unpruned merge, unless you need a smaller adapter."),
        ("rank", "initial", "use the unpruned merge."),
    ],
)
def test_what_pruning_is_good_for_besides(grid: Callable[..., RunRecord], granularity: str, reset: str, end: str):
    assert whether_pruning_helped(grid(granularity=granularity, reset=reset)).endswith(f"includes 0): {end}")


def test_a_merged_target_lora_is_reported(record: RunRecord):
    merged = record.model_copy(update={"recipe": {"merge": {"method": "linear", "target": True}}})
    assert what_was_run(merged).startswith("Pomona merged 2 adapters (stdlib and torch) and the target LoRA on Hugging")


def test_whole_runs_may_find_that_nothing_should_be_pruned(grid: Callable[..., RunRecord]):
    record = grid()
    assert record.answer is not None
    none = dataclasses.replace(record.answer, prune_ratio=0.0, low=0.0, high=0.3)
    assert whether_pruning_helped(record.model_copy(update={"answer": none})) == (
        "Of the 8 prune ratios that were tried, 0% is the best by dev loss (95% interval 0 to 30%; 0% is no pruning); nothing was "
        "pruned, so the result is the unpruned fine-tuned merge."
    )


def test_what_may_be_the_shape_s_doing_is_said_beside_the_comparison(record: RunRecord):
    assert "trained differently" not in how_good(record)
    record.systems["target_lora"].differences = [
        "it adapts q_proj, v_proj (60 modules), Pomona 7 kinds (210 modules)",
        "it trains 460.8 k parameters, Pomona 1.68 M",
    ]
    assert (
        "Target LoRA (trained differently: it adapts q_proj, v_proj (60 modules), Pomona 7 kinds (210 modules); it trains "
        "460.8 k parameters, Pomona 1.68 M)"
    ) in how_good(record)
    notes = [tile.note for tile in headline(record) if tile.label == "Against Target LoRA"]
    assert [note.endswith(", trained differently") for note in notes] == [True]
    assert "Target LoRA is trained differently from Pomona: it adapts q_proj" in descriptions_table(record).note


def test_a_pool_is_named_with_its_size_and_its_order(record: RunRecord) -> None:
    names = [source.name for source in record.sources]
    candidates = [RankedSource(name=name, loss=3.0, agreement=0.1, chosen=name in names) for name in (*names, "third")]
    chosen = record.model_copy(update={"pool": PoolRecord(by="gradient", base_loss=4.0, candidates=candidates, seconds=1.0)})
    assert what_was_run(chosen).startswith("Pomona merged the best 2 of 3 adapters by gradient (stdlib and torch) on ")


def test_a_control_says_whether_the_sources_help(record: RunRecord) -> None:
    base = how_good(record)
    better = how_good(with_comparison(record, "random_sources", 2.0, 1.0, 3.0, p_holm=0.01))
    assert better.startswith(base.removesuffix("."))
    assert better.endswith(
        "; it beats the control random sources, so the content of the sources helps, not only the form of the merge."
    )
    for low, p_holm in ((-1.0, 0.01), (1.0, 0.2)):
        assert "it does not beat the control random sources" in how_good(
            with_comparison(record, "random_sources", 2.0, low, 3.0, p_holm=p_holm)
        )


@pytest.mark.parametrize("control", list(CONTROLS))
def test_every_control_has_a_clause_of_its_own(record: RunRecord, control: str) -> None:
    for high, words in ((3.0, CONTROLS[control].beaten), (-3.0, CONTROLS[control].not_beaten)):
        low = high - 2 if high > 0 else high - 1
        found = with_comparison(record, control, (low + high) / 2, low, high, p_holm=0.01)
        assert words in how_good(found)
