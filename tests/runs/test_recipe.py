"""Recipes: what they say is what is run, and whatever is wrong with one is said in one line that names the file and the key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pomona.backbone.decoding import Decoding
from pomona.control import Bayes, Fixed, Grasp, Grid
from pomona.data.tasks import ExtractiveQA, Summarization
from pomona.errors import InputError
from pomona.importance import DeltaSensitivity, GradientSmoothed, Magnitude, Wanda
from pomona.metrics import Bleu, ExactMatch, TokenF1
from pomona.runs.demo import demo_recipe
from pomona.runs.read_recipe import parse_recipe, read_recipe
from pomona.runs.recipe import FirstPass, Lora, Recipe, TrainRecipe
from pomona.tuning.settings import Pruning

ROOT = Path(__file__).resolve().parents[2]
LEAST: dict[str, Any] = {"data": {"train": "rows.jsonl"}, "sources": [{"name": "one", "adapter": "adapters/one"}]}
FULL: dict[str, Any] = {
    "name": "full",
    "seed": 3,
    "model": "someone/model",
    "device": "cpu",
    "dtype": "bfloat16",
    "speed": "off",
    "task": {"name": "extractive_qa", "language": "de", "max_new_tokens": 9, "stop": ["Question:", "\n\n"]},
    "data": {
        "train": "train.csv",
        "dev": "dev.parquet",
        "test": "hub:owner/name@test",
        "columns": {"context": "passage", "answers": "gold.text", "group": "article"},
        "near_duplicates": "allow",
    },
    "splits": {"train": None, "micro_dev": 4, "dev": None, "test": 7},
    "sources": [
        {"name": "given", "adapter": "adapters/one", "weight": -0.5},
        {
            "name": "trained",
            "data": {"docstrings": "stdlib", "exclude_docstrings": ["numpy"]},
            "task": {"name": "summarization", "form": "chat", "system": "Be brief.", "template": "{document}"},
            "examples": 20,
            "tuning": {"epochs": 2},
        },
    ],
    "merge": {"method": "svd", "rank": 6, "target": True},
    "lora": {"rank": 2, "alpha": 1.5, "target_modules": ["k_proj"]},
    "tuning": {"learning_rate": 3e-4, "gradient_clip": None, "patience_epochs": 2},
    "pruning": {
        "metric": {"name": "gradient_smoothed", "beta_mean": 0.5},
        "interval_steps": 2,
        "activations": "full_pass",
        "forgetting": 0.5,
        "granularity": "rank",
        "scope": "layer",
        "reset": "initial",
        "schedule": "cubic",
        "ramp_fraction": 0.25,
    },
    "select_by": "exact_match",
    "controller": {"name": "fixed", "prune_ratio": 0.3},
    "evaluation": {
        "baselines": ["svd"],
        "metrics": ["bleu", {"name": "exact_match", "language": "ar", "arabic_article": "anywhere"}],
        "batch_size": 3,
        "draws": 150,
        "decoding": {"temperature": 0.7, "top_p": 1, "seed": 4},
    },
}


def parsed(*overrides: str, **changes: Any) -> Recipe:
    return parse_recipe(copy.deepcopy(LEAST) | changes, Recipe, overrides, "the.yaml")


def refused(*overrides: str, kind: type[Recipe] | type[TrainRecipe] = Recipe, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(copy.deepcopy(LEAST) | changes, kind, overrides, "the.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_defaults() -> None:
    recipe = parsed()
    assert (recipe.model, recipe.seed, recipe.dtype, recipe.speed) == ("embedded", 0, "auto", "auto")
    assert recipe.controller == Bayes()
    assert recipe.task == Summarization()
    assert recipe.pruning.metric == Wanda()
    assert recipe.merge.method == "concat"


def test_components_are_decoded() -> None:
    recipe = parse_recipe(copy.deepcopy(FULL), Recipe)
    assert recipe.task == ExtractiveQA(language="de", max_new_tokens=9, stop=("Question:", "\n\n"))
    assert recipe.controller == Fixed(0.3)
    assert recipe.pruning == Pruning(
        metric=GradientSmoothed(beta_mean=0.5),
        interval_steps=2,
        activations="full_pass",
        forgetting=0.5,
        granularity="rank",
        scope="layer",
        reset="initial",
        schedule="cubic",
        ramp_fraction=0.25,
    )
    assert recipe.sources[1].task == Summarization(form="chat", system="Be brief.", template="{document}")
    assert recipe.sources[1].tuning.epochs == 2
    assert recipe.sources[1].tuning.learning_rate == 2e-4
    assert (recipe.tuning.learning_rate, recipe.tuning.gradient_clip, recipe.tuning.patience_epochs) == (3e-4, None, 2)
    assert (recipe.splits.train, recipe.splits.test) == (None, 7)
    assert recipe.sources[0].weight == -0.5


@pytest.mark.parametrize("content", [LEAST, FULL], ids=["least", "full"])
def test_the_resolved_recipe_reads_as_an_equal_one(content: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(copy.deepcopy(content), Recipe)
    file = tmp_path / "resolved.yaml"
    file.write_text(recipe.yaml(), encoding="utf-8")
    again = read_recipe(file, Recipe)
    assert again == recipe
    assert again.yaml() == recipe.yaml()
    assert again.resolved() == yaml.safe_load(recipe.yaml())


@settings(max_examples=40, deadline=None)
@example(seed=0, text="\x85", rate=1.0, weight=0.0, ratio=0.0, micro_dev=1)
@given(
    seed=st.integers(0, 2**63 - 1),
    text=st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text),
    rate=st.floats(1e-12, 1e3),
    weight=st.floats(-1e6, 1e6),
    ratio=st.floats(0, 1),
    micro_dev=st.integers(1, 999),
)
def test_any_values_survive_the_round_trip(seed: int, text: str, rate: float, weight: float, ratio: float, micro_dev: int) -> None:
    recipe = parsed(
        seed=seed,
        model=text,
        tuning={"learning_rate": rate},
        sources=[{"name": "a", "adapter": "a", "weight": weight}],
        controller={"name": "fixed", "prune_ratio": ratio},
        splits={"micro_dev": micro_dev},
    )
    assert recipe.sources[0].weight == weight
    assert recipe.tuning.learning_rate == rate
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2", 2.0),
        ("1e-3", 0.001),
        ("[0, 1e-1, -1]", [0.0, 0.1, -1.0]),
        ("[{filter: '1', value: [0, 1]}, {value: 2}]", [{"filter": "1", "value": [0.0, 1.0]}, {"value": 2.0}]),
    ],
)
def test_a_merge_weight_is_a_number_or_a_list_over_depth_or_entries_by_module(given: str, kept: object) -> None:
    recipe = parse_recipe(copy.deepcopy(LEAST), Recipe, [f"sources.0.weight={given}"])
    assert recipe.sources[0].weight == kept
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe


@pytest.mark.parametrize("how", ["merge.weights=nan", "merge.weights=.nan"])
def test_the_rule_of_weights_has_the_name_of_a_number(how: str) -> None:
    recipe = parse_recipe(copy.deepcopy(LEAST), Recipe, [how])
    assert recipe.merge.weights == "nan"
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe
    with pytest.raises(InputError, match=r"merge\.weights"):
        parse_recipe(copy.deepcopy(LEAST), Recipe, ["merge.weights=equal"])


@pytest.mark.parametrize("method", ["linear", "svd", "ties"])
@pytest.mark.parametrize("granularity", ["source_layer", "source_rank"])
def test_units_of_sources_need_a_merge_that_keeps_them_apart(method: str, granularity: str) -> None:
    changes = [f"pruning.granularity={granularity}", f"merge.method={method}"]
    with pytest.raises(
        InputError, match=rf"granularity: prunes .* merge method {method} .*'{granularity}'\)\. Use merge method concat"
    ):
        parse_recipe(copy.deepcopy(LEAST), Recipe, changes)
    assert parse_recipe(copy.deepcopy(LEAST), Recipe, changes[:1]).pruning.granularity == granularity


def test_a_lora_s_shape_may_be_left_open_or_named_as_peft_does() -> None:
    sources = [{"name": "a", "data": {"train": "a.jsonl"}, "lora": {"rank": 2, "target_modules": ".*_proj"}}]
    plain = parse_recipe({"data": {"train": "x.jsonl"}, "sources": sources}, Recipe)
    assert (plain.lora.rank, plain.lora.target_modules) == (None, None)
    assert (plain.lora.own_rank, plain.lora.own_modules) == (8, ("q_proj", "v_proj"))
    assert plain.sources[0].lora == Lora(rank=2, target_modules=".*_proj")
    assert parse_recipe(plain.resolved(), Recipe) == plain
    named = parse_recipe({**plain.resolved(), "lora": {"target_modules": "all-linear"}}, Recipe)
    assert named.lora.own_modules == "all-linear"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"lora": {"target_modules": ".*(q_proj"}}, "target_modules is not a regular expression: missing )"),
        ({"lora": {"target_modules": []}}, "lora.target_modules"),
        ({"lora": {"target_modules": ""}}, "lora.target_modules"),
        ({"sources": [{"name": "a", "adapter": "a", "lora": {"rank": 2}}]}, "an `adapter` has its shape"),
    ],
)
def test_shapes_that_cannot_be(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as error:
        parse_recipe({"data": {"train": "x.jsonl"}, "sources": [{"name": "a", "adapter": "a"}], **changes}, Recipe)
    assert part in str(error.value)


@pytest.mark.parametrize("file", sorted(ROOT.glob("src/pomona/recipes/*.yaml")), ids=lambda file: file.name)
def test_the_repository_s_recipes_are_sound(file: Path) -> None:
    kind = Recipe if "sources" in yaml.safe_load(file.read_text(encoding="utf-8")) else TrainRecipe
    recipe = read_recipe(file, kind)
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), kind) == recipe


def test_the_demo_s_recipe_takes_overrides() -> None:
    assert demo_recipe() == read_recipe(ROOT / "src/pomona/recipes/demo.yaml", Recipe)
    assert demo_recipe(["seed=9"]).seed == 9


def test_importing_recipes_leaves_transformers_alone() -> None:
    import subprocess
    import sys

    code = "import sys, pomona.runs.recipe; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# Merging, pruning and searching -----------------------------------------------------------------------------------------


def test_pruning_is_by_default_what_the_loop_does_by_default() -> None:
    assert parsed().pruning == Pruning()
    assert parsed().select_by == "loss"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("loss", {"loss": 1.0}),
        ("rouge_l", {"rouge_l": 1.0}),
        ({"loss": 1, "rouge_l": "5e-1"}, {"loss": 1.0, "rouge_l": 0.5}),
        ({"chrf": 2, "loss": 0, "bleu": 0.0}, {"chrf": 2.0}),
    ],
)
def test_a_reward_is_a_name_or_weights_by_name(given: object, kept: dict[str, float]) -> None:
    recipe = parsed(reward=given)
    assert recipe.reward == recipe.resolved()["reward"] == kept
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe


def test_a_given_ratio_may_be_a_list_and_is_read_back() -> None:
    recipe = parsed(controller={"name": "fixed", "prune_ratio": ["1e-1", 0]})
    assert recipe.controller == Fixed((0.1, 0.0))
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe
    for value, message in (
        (["a", 0.2], "controller.prune_ratio.0: input should be a valid number"),
        ("a", "controller.prune_ratio: input should be a valid number"),
    ):
        assert message in refused(controller={"name": "fixed", "prune_ratio": value})


def test_a_weight_may_be_added_to_a_plain_reward() -> None:
    learns = {"name": "grasp", "mode": "two_pass"}
    assert parsed("reward.chrf=0.5", controller=learns, reward="loss").reward == {"loss": 1.0, "chrf": 0.5}
    assert parsed("reward.chrf=0.5", controller=learns).reward == {"loss": 1.0, "chrf": 0.5}, "the loss is the default"
    assert parsed("reward.chrf=0.5", "reward.loss=0", controller=learns).reward == {"chrf": 0.5}


def test_rewards_beside_the_loss_need_a_controller_that_learns() -> None:
    for controller in ("grid", {"name": "fixed", "prune_ratio": 0.5}):
        assert parsed(controller=controller, reward="loss").reward == {"loss": 1.0}
        assert parsed(controller=controller, reward={"loss": 1, "chrf": 0}).reward == {"loss": 1.0}
        message = refused(controller=controller, reward="chrf")
        assert message.startswith(
            "the.yaml: reward: rewards a controller that learns the ratio within the run, and this one does not"
        )
        assert message.endswith("use the controller bayes; epochs and whole runs are judged by select_by.")
    assert parsed(controller={"name": "grasp", "mode": "two_pass"}, reward="chrf").reward == {"chrf": 1.0}


SEARCH: dict[str, Any] = {"metric": "magnitude", "epochs": 3, "accumulation_steps": 1, "patience_epochs": 2, "seed": 0}


@pytest.mark.parametrize("key", SEARCH)
@pytest.mark.parametrize("controller", ["grasp", "layerwise", "grid", "tpe", {"name": "fixed", "prune_ratio": 0.5}], ids=str)
def test_settings_of_the_first_of_two_passes_are_refused_by_name_where_there_is_one(key: str, controller: Any) -> None:
    message = refused(controller=controller, search={key: SEARCH[key]})
    assert message.startswith(f"the.yaml: search.{key}: is of the first of two passes, and this controller makes none")
    assert parsed(controller=controller, search={}).search == FirstPass()


def test_settings_of_the_first_of_two_passes_are_read_and_written() -> None:
    for controller in ("grasp", "layerwise"):
        recipe = parsed("search.metric.name=magnitude", controller={"name": controller, "mode": "two_pass"}, search=SEARCH)
        assert recipe.search == FirstPass(metric=Magnitude(), epochs=3, accumulation_steps=1, patience_epochs=2, seed=0)
        assert parse_recipe(recipe.resolved(), Recipe) == recipe
        assert recipe.first_pass is None, "the run's own seed"
        of_another = parsed("search.seed=42", controller={"name": controller, "mode": "two_pass"})
        assert of_another.first_pass == of_another.model_copy(update={"seed": 42})
        for key, message in (("epochs", "greater than or equal to 1"), ("seed", "greater than or equal to 0"), ("epoch", "epochs")):
            wrong = {key: -1}
            assert message in refused(controller={"name": controller, "mode": "two_pass"}, search=wrong)
        assert "magnitude" in refused(controller={"name": controller, "mode": "two_pass"}, search={"metric": "magnitud"})


def test_a_search_under_published_norms_is_by_a_metric_that_they_serve_or_that_reads_none() -> None:
    published: dict[str, Any] = {
        "controller": {"name": "grasp", "mode": "two_pass"},
        "pruning": {"metric": "delta_sensitivity", "paper": True},
    }
    for metric in ("magnitude", "delta_sensitivity", "gradient"):
        parsed(**published, search={"metric": metric})
    for metric in ("wanda", "activation", "gradient_activation"):
        assert refused(**published, search={"metric": metric}).startswith("the.yaml: search.metric: reads norms of activations")


def test_metrics_that_judge_are_named_once() -> None:
    assert parsed().judges == []
    assert parsed("select_by=chrf", reward={"loss": 1, "rouge_l": 1, "chrf": 3}).judges == ["chrf", "rouge_l"]


def test_the_published_code_s_norms_come_with_its_metric() -> None:
    recipe = parsed(pruning={"paper": True, "metric": "delta_sensitivity"}, merge={"method": "linear", "paper": True})
    assert recipe.pruning == Pruning(DeltaSensitivity(), paper=True)
    assert recipe.merge.paper
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe


def test_a_grid_is_a_controller_like_any_other() -> None:
    recipe = parsed(controller={"name": "grid", "prune_ratios": [0, "0.25", 5e-1]})
    assert recipe.controller == Grid((0.0, 0.25, 0.5))
    assert recipe.resolved()["controller"] == {"name": "grid", "prune_ratios": [0.0, 0.25, 0.5]}
    assert parse_recipe(yaml.safe_load(recipe.yaml()), Recipe) == recipe
    assert parsed("pruning.schedule=cubic", controller="grid").controller == Grid()


def test_some_sources_may_be_frozen_and_all_where_a_target_lora_is_merged_too() -> None:
    two = [{"name": name, "adapter": name} for name in ("one", "two")]
    assert parsed(sources=two, merge={"frozen": ["two"]}).merge.frozen == ("two",)
    assert parsed(merge={"frozen": ["one"], "target": True}).merge.target
    assert parsed("merge.weights_learning_rate=1e-2").merge.weights_learning_rate == 0.01


# Data, metrics and decoding ---------------------------------------------------------------------------------------------


def test_what_a_recipe_says_of_data_metrics_and_decoding() -> None:
    recipe = parse_recipe(copy.deepcopy(FULL), Recipe)
    assert recipe.data.columns == {"context": "passage", "answers": "gold.text", "group": "article"}
    assert recipe.data.near_duplicates == "allow"
    assert recipe.evaluation.decoding == Decoding(temperature=0.7, top_p=1.0, seed=4)
    # The task's language is the metric's, but where it has its own.
    assert recipe.metrics == {"bleu": Bleu(language="de"), "exact_match": ExactMatch(language="ar", arabic_article="anywhere")}


def test_the_task_s_metrics_and_greedy_decoding_are_the_default() -> None:
    recipe = parsed(task={"name": "extractive_qa", "language": "zh"})
    assert recipe.metrics == {"token_f1": TokenF1(language="zh"), "exact_match": ExactMatch(language="zh")}
    assert recipe.evaluation.decoding == Decoding()
    assert (recipe.data.columns, recipe.data.near_duplicates) == ({}, "apart")


def test_decoding_and_columns_can_be_overridden() -> None:
    changed = parsed(
        "evaluation.decoding.num_beams=4",
        "evaluation.decoding.length_penalty=2",
        "evaluation.metrics=[chrf, {name: bleu}]",
        "data.columns.document=abstract",
        "data.near_duplicates=allow",
    )
    assert changed.evaluation.decoding == Decoding(num_beams=4, length_penalty=2.0)
    assert list(changed.metrics) == ["chrf", "bleu"]
    assert changed.data.columns == {"document": "abstract"}
    assert changed.data.near_duplicates == "allow"


def test_an_answer_must_leave_room_for_a_prompt() -> None:
    assert parsed("tuning.max_tokens=33", task="extractive_qa").task.max_new_tokens == 32
    message = refused("tuning.max_tokens=32", task="extractive_qa")
    assert message.startswith(
        "the.yaml: tuning.max_tokens = 32 leaves no room for a prompt before an answer of task.max_new_tokens = 32"
    )


# Overrides --------------------------------------------------------------------------------------------------------------


def test_overrides_reach_every_level() -> None:
    recipe = parsed(
        "seed=4",
        "tuning.epochs=2",
        "splits.train=null",
        "sources.0.weight=0.25",
        "sources.0.name=renamed",
        "lora.target_modules=[a, b]",
        "evaluation.baselines=[]",
        "task.language=fr",
        "name=a=b",
        task="summarization",
    )
    assert (recipe.seed, recipe.tuning.epochs, recipe.splits.train) == (4, 2, None)
    assert (recipe.sources[0].weight, recipe.sources[0].name) == (0.25, "renamed")
    assert recipe.lora.target_modules == ("a", "b")
    assert recipe.evaluation.baselines == ()
    assert recipe.name == "a=b"


def test_an_override_names_a_component_and_then_its_parameters() -> None:
    assert parsed("controller=fixed", "controller.prune_ratio=0.3").controller == Fixed(0.3)
    assert parsed("controller.name=fixed", "controller.prune_ratio=0.3").controller == Fixed(0.3)
    assert parsed("task.max_new_tokens=5", task="summarization").task == Summarization(max_new_tokens=5)
    assert parsed("controller.mode=two_pass", controller="grasp").controller == Grasp(mode="two_pass")
    replaced = parsed("controller={name: fixed, prune_ratio: 1}", controller={"name": "grasp", "interval_steps": 2})
    assert replaced.controller == Fixed(1.0)


def test_a_list_s_item_is_replaced() -> None:
    assert parsed("evaluation.baselines.1=linear", evaluation={"baselines": ["svd", "concat"]}).evaluation.baselines == (
        "svd",
        "linear",
    )


def test_an_override_can_change_a_parameter_of_a_default_component() -> None:
    changed = parsed("task.language=ar", "controller.interval_steps=2")
    assert changed.task == Summarization(language="ar")
    assert changed.controller == Bayes(interval_steps=2)


def test_the_last_of_two_overrides_counts() -> None:
    assert parsed("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("seed", "overrides: an override is key=value (got 'seed')"),
        ("=1", "an override is key=value"),
        ("sources.1.weight=1", "'1' counts into a list of 1"),
        ("sources.one.weight=1", "'one' counts into a list of 1"),
        ("sources.-1.weight=1", "'-1' counts into a list of 1"),
        ("tuning.epochs=[1", "the value is not YAML"),
        ("seed=0b_", "the value is not YAML"),
        ("lora.target_modules.0.name=1", "'0' counts to a value, which has no keys"),
        ("name.first=x", "name: input should be a valid string"),
        ("seed..x=1", "seed"),
    ],
)
def test_overrides_that_do_not_fit(override: str, part: str) -> None:
    assert part in refused(override, lora={"target_modules": ["q"]})


# What is wrong ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("sede", "seed"),
        ("data.trian", "train"),
        ("splits.microdev", "micro_dev"),
        ("sources.0.adaptor", "adapter"),
        ("sources.0.data.docstring", "docstrings"),
        ("sources.0.tuning.epoch", "epochs"),
        ("merge.methods", "method"),
        ("lora.ranks", "rank"),
        ("tuning.learning_rat", "learning_rate"),
        ("pruning.interval_step", "interval_steps"),
        ("evaluation.baseline", "baselines"),
        ("evaluation.decoding.num_beam", "num_beams"),
        ("data.column", "columns"),
    ],
)
def test_an_unknown_key_at_any_level_names_the_nearest_known_one(key: str, near: str) -> None:
    message = refused(f"{key}=1")
    assert message.startswith(f"the.yaml: {key}: unknown key. Did you mean {near!r}? Known: ")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"task": "sumarization"}, "no such task (got 'sumarization'). Did you mean 'summarization'?"),
        ({"controller": "grsp"}, "no such controller (got 'grsp'). Did you mean 'grasp'?"),
        ({"pruning": {"metric": "wnda"}}, "no such importance metric (got 'wnda'). Did you mean 'wanda'?"),
        ({"merge": {"method": "svdd"}}, "no such merge method (got 'svdd'). Did you mean 'svd'?"),
        ({"evaluation": {"metrics": ["rouge_l", "blue"]}}, "no such metric (got 'blue'). Did you mean 'bleu'?"),
        ({"evaluation": {"metrics": [{"name": "bleu", "langage": "en"}]}}, "metric 'bleu' has no parameter 'langage'"),
        ({"evaluation": {"metrics": [{"language": "en"}]}}, "metrics: a metric needs a name"),
        ({"evaluation": {"metrics": ["bleu", {"name": "bleu"}]}}, "metrics: the metric is there twice (got 'bleu')"),
        ({"evaluation": {"baselines": ["zeroshot"]}}, "no such baseline (got 'zeroshot'). Did you mean 'zero_shot'?"),
        ({"task": {"name": "summarization", "langage": "en"}}, "task 'summarization' has no parameter 'langage'. Did you mean"),
        ({"controller": {"name": "grasp", "candidate": 3}}, "controller 'grasp' has no parameter 'candidate'. Did you mean"),
        ({"pruning": {"metric": {"name": "wanda", "x": 1}}}, "importance metric 'wanda' has no parameter 'x'"),
        ({"merge": {"method": "svd", "parameters": {"rnk": 1}}}, "merge method 'svd' has no parameter 'rnk'"),
        ({"sources": [{"name": "one", "data": {"train": "x"}, "task": "qa"}]}, "no such task (got 'qa')"),
    ],
)  # fmt: skip
def test_unknown_components_and_parameters(changes: dict[str, Any], part: str) -> None:
    message = refused(**changes)
    assert message.startswith("the.yaml: ")
    assert part in message


@pytest.mark.parametrize(
    ("override", "field", "shown"),
    [
        ("seed=many", "seed", "(got 'many')"),
        ("seed=-1", "seed", "(got -1)"),
        ("name=[a]", "name", "valid string"),
        ("splits=3", "splits", "(got 3)"),
        ("splits.test=few", "splits.test", "(got 'few')"),
        ("splits.test=0", "test", "(got 0)"),
        ("splits.micro_dev=null", "splits.micro_dev", "(got None)"),
        ("data=rows.jsonl", "data", "(got 'rows.jsonl')"),
        ("sources=[]", "sources", "at least 1 item"),
        ("sources={}", "sources", "valid tuple"),
        ("sources.0.weight=.nan", "sources.0.weight", "finite number (got nan)"),
        ("sources.0.weight=.inf", "sources.0.weight", "finite number (got inf)"),
        ("sources.0.weight=much", "sources.0.weight", "must be a number (got 'much')"),
        ("sources.0.weight=true", "sources.0.weight", "must be a number (got True)"),
        ("sources.0.weight=null", "sources.0.weight", "must be a number (got None)"),
        ("sources.0.weight=[1, much]", "sources.0.weight[1]", "must be a number (got 'much')"),
        ("sources.0.weight=[]", "sources.0.weight", "is an empty list"),
        ("sources.0.weight=[{filter: q_proj}]", "sources.0.weight[0]", "has no value"),
        ("sources.0.weight=[{filtre: q_proj, value: 1}]", "sources.0.weight[0]", "Did you mean 'filter'?"),
        ("sources.0.examples=0", "sources.0.examples", "(got 0)"),
        ("tuning.epochs=1.5", "tuning.epochs", "(got 1.5)"),
        ("tuning.epochs=0", "tuning.epochs", "must be at least 1 (got 0)"),
        ("tuning.learning_rate=0", "tuning.learning_rate", "must be above 0 (got 0.0)"),
        ("tuning.dropout=1", "tuning.dropout", "must be in [0, 1) (got 1.0)"),
        ("tuning=null", "tuning", "(got None)"),
        ("lora.alpha=.inf", "lora.alpha", "finite number"),
        ("lora.rank=0", "lora.rank", "(got 0)"),
        ("merge.rank=0", "merge.rank", "(got 0)"),
        ("pruning.forgetting=1.1", "pruning.forgetting", "(got 1.1)"),
        ("pruning.interval_steps=0", "pruning.interval_steps", "must be at least 1 (got 0)"),
        ("pruning.ramp_fraction=0", "pruning.ramp_fraction", "must be in (0, 1] (got 0.0)"),
        ("pruning.granularity=row", "pruning.granularity", "(got 'row')"),
        ("pruning.scope=model", "pruning.scope", "(got 'model')"),
        ("pruning={granularity: module, scope: tensor}", "pruning.scope", "Use one of layer, global"),
        ("pruning.masks=adapters", "pruning.masks", "(got 'adapters')"),
        ("pruning={granularity: rank, masks: adapter}", "pruning.masks", "Use merged, or granularity parameter"),
        ("pruning={granularity: source_layer, scope: tensor}", "pruning.scope", "Use one of layer, global"),
        ("controller={name: grasp, published: [any_gains]}", "published", "Did you mean 'any_gain'"),
        ("controller={name: grasp, published: [variance_floor]}", "published", "Add reinforce"),
        ("pruning.reset=one", "pruning.reset", "(got 'one')"),
        ("pruning.schedule=sine", "pruning.schedule", "(got 'sine')"),
        ("pruning.activations=none", "pruning.activations", "(got 'none')"),
        ("pruning.activations=published", "pruning.activations", "(got 'published')"),
        ("pruning.paper=true", "pruning.metric", "Set pruning.metric to delta_sensitivity"),
        ("pruning={paper: true, metric: wanda}", "pruning.metric", "(got 'Wanda')"),
        ("pruning={metric: {name: gradient_smoothed, beta_mean: 1}}", "beta_mean", "must be in [0, 1) (got 1.0)"),
        ("merge.weights_learning_rate=0", "merge.weights_learning_rate", "(got 0)"),
        ("merge.frozen=one", "merge.frozen", "(got 'one')"),
        ("merge.target=maybe", "merge.target", "(got 'maybe')"),
        ("tuning.gradient_checkpointing=often", "tuning.gradient_checkpointing", "(got 'often')"),
        ("controller={name: grid, prune_ratios: [0.5]}", "prune_ratios", "must be at least 2 ratios"),
        ("controller={name: grid, prune_ratios: [0.5, 0.2]}", "prune_ratios", "must be strictly rising"),
        ("controller={name: grid, prune_ratios: [0.5, 1.5]}", "prune_ratios", "must all be in [0, 1]"),
        ("controller={name: grid, prune_ratios: half}", "controller.prune_ratios", "(got 'half')"),
        (
            "controller={name: grid, prune_ratio: 0.5}",
            "controller 'grid' has no parameter 'prune_ratio'",
            "Did you mean 'prune_ratios'?",
        ),
        ("select_by=rouge", "select_by", "no such metric (got 'rouge'). Did you mean 'rouge_l'? Known: bert_score, bleu,"),
        ("select_by=los", "select_by", "Did you mean 'loss'?"),
        ("select_tolerance=1", "select_tolerance", "Set select_by to a metric, or leave select_tolerance out"),
        ("select_tolerance=-1", "select_tolerance", "(got -1)"),
        (
            "pruning.schedule=cubic",
            "pruning.schedule = 'cubic' needs a given ratio",
            "use constant, or the controller fixed or grid",
        ),
        ("select_by=[loss]", "select_by", "valid string"),
        ("reward=rouge", "reward", "no such metric (got 'rouge'). Did you mean 'rouge_l'? Known: bert_score, bleu,"),
        ("reward={los: 1}", "reward", "Did you mean 'loss'?"),
        ("reward={5: 1}", "reward", "no such metric (got 5)"),
        ("reward=[loss]", "reward", "weights by such names (got ['loss'])"),
        ("reward=null", "reward", "weights by such names (got None)"),
        ("reward={}", "reward", "has no weight above 0"),
        ("reward={loss: 0, chrf: 0.0}", "reward", "has no weight above 0, so nothing would be rewarded (got {'loss': 0,"),
        ("reward={loss: 1, chrf: -1}", "reward.chrf", "of at least 0 (got -1.0)"),
        ("reward.chrf=.inf", "reward.chrf", "must be a finite number of at least 0 (got inf)"),
        ("reward.chrf=.nan", "reward.chrf", "must be a finite number of at least 0 (got nan)"),
        ("reward.chrf=much", "reward.chrf", "(got 'much')"),
        ("reward.chrf=true", "reward.chrf", "(got True)"),
        ("reward.chrf=null", "reward.chrf", "(got None)"),
        ("controller=5", "controller", "(got 5)"),
        ("controller={interval_steps: 2}", "the controller needs a name", "Known: bayes, fixed, grasp"),
        ("controller=fixed", "controller.prune_ratio", "is missing"),
        ("controller={name: fixed, prune_ratio: 2}", "prune_ratio", "must be in [0, 1] (got 2.0)"),
        ("controller={name: fixed, prune_ratio: half}", "controller.prune_ratio", "(got 'half')"),
        ("controller.mode=thrice", "controller.mode", "(got 'thrice')"),
        ("task.max_new_tokens=0", "max_new_tokens", "(got 0)"),
        ("task.language=English", "language", "not a language tag (got 'English')"),
        ("evaluation.draws=10", "evaluation.draws", "(got 10)"),
        ("evaluation.metrics=[]", "evaluation.metrics", "at least 1 item"),
        ("evaluation.metrics=[5]", "evaluation.metrics.0", "(got 5)"),
        ("evaluation.decoding=beam", "evaluation.decoding", "(got 'beam')"),
        ("evaluation.decoding.num_beams=0", "num_beams", "at least 1 is expected (got 0)"),
        ("evaluation.decoding.num_beams=2.5", "evaluation.decoding.num_beams", "(got 2.5)"),
        ("evaluation.decoding.temperature=-1", "temperature", "at least 0 is expected (got -1.0)"),
        ("evaluation.decoding={num_beams: 2, temperature: 1}", "temperature", "a beam search draws nothing"),
        ("data.near_duplicates=maybe", "data.near_duplicates", "(got 'maybe')"),
        ("data.columns=[a]", "data.columns", "valid dictionary"),
        ("data.columns.document=3", "data.columns.document", "(got 3)"),
        ("task.stop=[1]", "task.stop.0", "(got 1)"),
        ("task.stop=['']", "stop", "none of them empty"),
        ("task.form=chatty", "task.form", "'base' or 'chat'"),
        ("task.system=Hello", "system", "must be a text, and only in the chat form"),
        ("task.template=no document", "template", "{document}"),
        ("dtype=float8", "unknown dtype 'float8'", "float32, bfloat16, float16"),
        ("speed=fast", "speed", "'auto' or 'off'"),
    ],
)
def test_values_that_do_not_fit(override: str, field: str, shown: str) -> None:
    message = refused(override, task="summarization", controller="grasp")
    assert message.startswith(f"the.yaml: {field}")
    assert shown in message


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"data": {}}, "data: give either `train` (a file) or `docstrings`"),
        ({"data": {"train": "x", "docstrings": "os"}}, "data: give either `train` (a file) or `docstrings`"),
        ({"data": {"docstrings": "os", "test": "x"}}, "data: `docstrings` is one pool"),
        ({"data": {"docstrings": "os", "columns": {"document": "x"}}}, "data: `docstrings` has no columns to map"),
        ({"sources": [{"name": "one"}]}, "sources.0: give either `adapter`"),
        ({"sources": [{"name": "one", "adapter": "x", "data": {"train": "x"}}]}, "sources.0: give either `adapter`"),
        ({"sources": [{"name": "one", "adapter": "x"}, {"name": "one", "adapter": "y"}]}, "two sources have one name: one, one"),
        ({"sources": [{"adapter": "x"}]}, "sources.0.name: is missing"),
        ({"merge": {"paper": True}}, "merge: `paper` needs method linear"),
        ({"merge": {"method": "svd", "paper": True}}, "merge: `paper` needs method linear"),
        ({"merge": {"method": "linear", "rank": 4}}, "merge: linear has the rank that the adapters give it"),
        ({"merge": {"rank": 4}}, "merge: concat has the rank that the adapters give it"),
        ({"merge": {"method": "svd", "frozen": ["one"]}}, "merge: method svd makes one pair: `frozen` and"),
        ({"merge": {"method": "ties", "weights_learning_rate": 0.1}}, "merge: method ties makes one pair: `frozen` and"),
        ({"merge": {"frozen": ["other"]}}, "merge.frozen names 'other', which is no source: one"),
        ({"merge": {"frozen": ["one"]}}, "merge.frozen names every source: nothing would be trained"),
        (
            {"merge": {"train": "coefficients"}},
            "controller: prunes factors, and all factors are frozen (got 'Bayes'). Use controller",
        ),
        ({"merge": {"frozen": ["one"], "weights_learning_rate": 0.1}}, "controller: prunes factors, and all factors are frozen"),
        ({"merge": {"train": "coefficients", "method": "linear"}}, "merge.train: needs a merge that is the sum of the adapters'"),
        ({"merge": {"train": "coefficients", "method": "svd"}}, "merge.train: needs a merge that is the sum of the adapters'"),
        ({"merge": {"train": "coefficients", "weights_learning_rate": 0.1}}, "merge.weights_learning_rate: the coefficients are"),
        ({"merge": {"train": "coefficients", "coefficients": {"start": "target"}}}, "merge.coefficients.start: no target LoRA is"),
        ({"merge": {"coefficients": {"unit": "layer"}}}, "merge.coefficients: no coefficients are trained. Set merge.train to"),
        ({"merge": {"train": "coefficients", "coefficients": {"negative_slope": 0}}}, "merge.coefficients.negative_slope: "),
        ({"merge": {"train": []}}, "merge.train: names no stage (got [])"),
        ({"merge": {"train": {"coefficients": 0.5, "factors": 0.6}}}, "merge.train: the shares of the stages must be above 0 and"),
        ({"merge": {"train": {"coefficients": 0, "factors": 1}}}, "merge.train: the shares of the stages must be above 0 and add"),
        ({"merge": {"train": {"coefficients": "half", "factors": 0.5}}}, "merge.train: the shares of the stages must be above 0"),
        ({"merge": {"train": ["factors", "coefficients"]}}, "merge.train: coefficients come after factors, and a run that prunes"),
        ({"merge": {"train": ["coefficients", "factors"], "method": "ties"}}, "merge.train: needs a merge that is the sum"),
        (
            {"merge": {"train": ["coefficients", "factors"], "frozen": ["one"]}},
            "merge.frozen names every source: the stage factors of merge.train would train nothing",
        ),
        ({"merge": {"train": "coefficients", "coefficients": {"unit": "row"}}}, "merge.coefficients.unit: "),
    ],
)
def test_contradictions(changes: dict[str, Any], part: str) -> None:
    assert refused(**changes).startswith(f"the.yaml: {part}")


@pytest.mark.parametrize(
    ("train", "stages"),
    [
        ("factors", [("factors", 1.0)]),
        ("[coefficients, factors]", [("coefficients", 0.5), ("factors", 0.5)]),
        ("{coefficients: 3e-1, factors: 0.7}", [("coefficients", 0.3), ("factors", 0.7)]),
        ("[coefficients, factors, coefficients, factors]", [("coefficients", 0.25), ("factors", 0.25)] * 2),
    ],
)
def test_stages(train: str, stages: list[tuple[str, float]]) -> None:
    recipe = parsed(f"merge.train={train}", controller={"name": "fixed", "prune_ratio": 0})
    assert list(recipe.merge.stages) == stages
    assert parse_recipe(recipe.resolved(), Recipe, (), "the.yaml") == recipe


@pytest.mark.parametrize("key", ["data", "sources"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"^the.yaml: {key}: is missing"):
        parse_recipe({name: value for name, value in LEAST.items() if name != key}, Recipe, (), "the.yaml")


def test_a_recipe_to_train_with_is_not_one_to_adapt_with() -> None:
    assert refused(kind=TrainRecipe).startswith("the.yaml: sources: unknown key")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"a: [1", "recipe.yaml:1: not YAML"),
        (b"name: x\nseed: @\n", "recipe.yaml:2: not YAML"),
        (b"seed: 0b_\n", "recipe.yaml: not YAML"),
        (b"[" * 5000, "recipe.yaml: not YAML"),
        (b"name: !!python/object/apply:os.getcwd []\n", "recipe.yaml:1: not YAML"),
        (b"\xff\xfe", "recipe.yaml: the recipe cannot be read"),
        (b"", "recipe.yaml: a recipe is a mapping"),
        (b"- 1\n", "recipe.yaml: a recipe is a mapping"),
        (b"data: {train: x}\nsources: [{name: a, adapter: b}]\n1: 2\n", "recipe.yaml: 1: keys should be strings"),
    ],
)
def test_files_that_are_not_recipes(content: bytes, part: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_recipe(file, Recipe)
    assert str(caught.value).startswith(f"{tmp_path}/{part}")
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_recipe(tmp_path / "nowhere.yaml", Recipe)
    with pytest.raises(InputError, match="Is a directory"):
        read_recipe(tmp_path, Recipe)
