"""The target LoRA's shape follows what the main system trains, unless the recipe says otherwise, and then it is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, write_adapter
from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.runs.recipe import Data, Lora, Merge, Recipe, Source
from pomona.runs.shape import Ranks, differences, main_ranks, merged_target, opponent, parameters, trainable, warning
from pomona.runs.sizes import said_count
from pomona.runs.sources import check_sources

ATTENTION = ("q_proj", "v_proj")
ALL_LINEAR = (*ATTENTION, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


def the_issue_s(backbone: Backbone) -> list[Adapter]:
    """One source of rank 8 on q and v, one of rank 4 on every linear module."""
    return [tiny_adapter(backbone, rank=8, targets=ATTENTION), tiny_adapter(backbone, seed=1, rank=4, targets=ALL_LINEAR)]


def ranks_of(adapters: list[Adapter]) -> list[Ranks]:
    return [{module: adapter[module].rank for module in adapter} for adapter in adapters]


def a_recipe(weights: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    given = {"a": 1.0, "b": 1.0} if weights is None else weights
    sources = tuple(Source(name=name, adapter=Path(name), weight=weight) for name, weight in given.items())
    return Recipe(data=Data(train="x.jsonl"), sources=sources, **changes)


def main_of(recipe: Recipe, adapters: list[Adapter], backbone: Backbone) -> Ranks:
    found = main_ranks(recipe, ranks_of(adapters), backbone)
    assert found is not None
    return found


def test_the_opponent_of_a_mixed_merge_has_its_modules_and_its_size(backbone: Backbone) -> None:
    adapters, recipe = the_issue_s(backbone), a_recipe()
    main = main_of(recipe, adapters, backbone)
    shape = opponent(recipe, main, backbone)
    assert shape.modules == tuple(backbone.linear_modules())
    # By hand, of one of two equal layers: q 32+32, v 16+32, k 16+32, o 32+32, gate, up and down 48+32 each.
    each = 2 * (64 + 48 + 48 + 64 + 3 * 80)
    trained = 2 * 8 * (64 + 48) + 4 * each
    assert parameters(main, backbone.shapes()) == trained == 5504
    assert shape.rank == min(range(1, 20), key=lambda rank: abs(rank * each - trained)) == 6
    assert shape.alpha / shape.rank == 32 / 8
    assert differences(shape.ranks, main, backbone.shapes()) == []


def test_of_two_ranks_equally_near_the_opponent_gets_the_higher(backbone: Backbone) -> None:
    q, k = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
    assert opponent(a_recipe(), {q: 3, k: 4}, backbone).rank == 4


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"merge": Merge(method="linear")},
        {"merge": Merge(frozen=("b",))},
        {"merge": Merge(method="linear", frozen=("a",))},
        {"weights": {"a": 1.0, "b": [{"filter": "mlp", "value": 0.0}, {"filter": "k_proj", "value": [0.0, 2.0]}, {"value": -1.0}]}},
    ],
    ids=["concat", "linear", "frozen", "linear, frozen", "weights of 0"],
)
def test_what_the_main_system_trains_is_what_is_attached(backbone: Backbone, how: dict[str, Any]) -> None:
    adapters, recipe = the_issue_s(backbone), a_recipe(**how)
    made = trainable(recipe.merge, ["a", "b"])
    assert made is not None
    with attached(backbone, adapters, [source.weight for source in recipe.sources], how=made) as attachment:
        trained = {path: layer.effective().rank for path, layer in attachment.layers.items()}
    assert main_of(recipe, adapters, backbone) == trained
    assert opponent(recipe, trained, backbone).modules == tuple(trained)


def test_frozen_sources_and_weights_of_zero_lend_no_modules(backbone: Backbone) -> None:
    adapters = the_issue_s(backbone)
    without_b = tuple(adapters[0].modules)
    for recipe in (a_recipe(merge=Merge(frozen=("b",))), a_recipe({"a": 1.0, "b": 0.0})):
        shape = opponent(recipe, main_of(recipe, adapters, backbone), backbone)
        assert (shape.modules, shape.rank) == (without_b, 8)


def test_sums_of_factors_count_once(backbone: Backbone) -> None:
    """As many as can be told apart in the update, as many as are pruned and exported."""
    recipe = a_recipe(merge=Merge(method="linear"))
    same = [tiny_adapter(backbone, seed=seed, rank=8, targets=ATTENTION) for seed in (1, 2)]
    assert opponent(recipe, main_of(recipe, same, backbone), backbone).rank == 8
    assert opponent(a_recipe(), main_of(a_recipe(), same, backbone), backbone).rank == 16


def test_a_pair_that_a_method_makes_is_not_known_from_shapes(backbone: Backbone) -> None:
    assert main_ranks(a_recipe(merge=Merge(method="svd")), ranks_of(the_issue_s(backbone)), backbone) is None


@pytest.mark.parametrize(
    ("lora", "differs", "given"),
    [
        (
            Lora(rank=8, target_modules=("q_proj", "v_proj")),
            ["it adapts q_proj, v_proj (4 modules), Pomona 7 kinds (14 modules)", "it trains 1.8 k parameters, Pomona 5.5 k"],
            "lora.rank and lora.target_modules",
        ),
        (Lora(rank=3), ["it trains 2.8 k parameters, Pomona 5.5 k"], "lora.rank"),
        (Lora(rank=6), [], ""),
        (
            Lora(target_modules=("down_proj",)),
            ["it adapts down_proj (2 modules), Pomona 7 kinds (14 modules)"],
            "lora.target_modules",
        ),
    ],
    ids=["both", "a small rank", "the rank it has anyway", "modules"],
)
def test_what_the_recipe_gives_stays_and_is_said(backbone: Backbone, lora: Lora, differs: list[str], given: str) -> None:
    adapters, recipe = the_issue_s(backbone), a_recipe(lora=lora)
    main = main_of(recipe, adapters, backbone)
    shape = opponent(recipe, main, backbone)
    assert lora.rank in (None, shape.rank)
    assert differences(shape.ranks, main, backbone.shapes()) == differs
    if differs:
        assert warning("Target LoRA", differs, lora) == (
            "Target LoRA is not trained like Pomona, so a difference between them may come from that: "
            f"{'; '.join(differs)} (the recipe gives {given}; left out, they follow Pomona)"
        )


def test_a_given_rank_has_the_given_alpha(backbone: Backbone) -> None:
    recipe = a_recipe(lora=Lora(rank=3, alpha=6))
    shape = opponent(recipe, main_of(recipe, the_issue_s(backbone), backbone), backbone)
    assert (shape.rank, shape.alpha) == (3, 6)


def test_the_target_lora_that_is_merged_does_not_follow_itself(backbone: Backbone) -> None:
    adapters, recipe = the_issue_s(backbone), a_recipe(merge=Merge(target=True))
    merged = merged_target(recipe, ranks_of(adapters), backbone)
    assert (merged.modules, merged.rank, merged.alpha) == (tuple(backbone.linear_modules()), 8, 32)
    main = main_of(recipe, adapters, backbone)
    assert main["model.layers.0.self_attn.q_proj"] == 8 + 4 + 8
    assert opponent(recipe, main, backbone).rank == 14


@pytest.mark.parametrize(("targets", "rank"), [("all-linear", 4), (r".*\.1\..*c_proj", 3)])
def test_gpt_2_has_names_of_its_own(targets: str, rank: int) -> None:
    backbone = tiny_backbone("gpt2")
    adapters = [tiny_adapter(backbone, rank=4, targets=("attn.c_attn",)), tiny_adapter(backbone, rank=2, targets=("c_proj",))]
    recipe = a_recipe()
    shape = opponent(recipe, main_of(recipe, adapters, backbone), backbone)
    assert {module.partition(".h.")[2].partition(".")[2] for module in shape.modules} == {
        "attn.c_attn",
        "attn.c_proj",
        "mlp.c_proj",
    }
    given = opponent(a_recipe(lora=Lora(rank=rank, target_modules=targets)), main_of(recipe, adapters, backbone), backbone)
    assert len(given.modules) == (8 if targets == "all-linear" else 2)
    assert given.rank == rank


def test_the_check_before_a_run_warns(tmp_path: Path, backbone: Backbone) -> None:
    for name, adapter in zip("ab", the_issue_s(backbone), strict=True):
        write_adapter(adapter, tmp_path / name)
    sources = tuple(Source(name=name, adapter=tmp_path / name) for name in "ab")
    plain = Recipe(data=Data(train="x.jsonl"), sources=sources)
    unfair = plain.model_copy(update={"lora": Lora(rank=8, target_modules=("q_proj", "v_proj"))})
    unasked = unfair.model_copy(update={"evaluation": plain.evaluation.model_copy(update={"baselines": ("zero_shot",)})})
    assert check_sources(plain, backbone).warnings == check_sources(unasked, backbone).warnings == ()
    (said,) = check_sources(unfair, backbone).warnings
    assert said.startswith("Target LoRA is not trained like Pomona")


@pytest.mark.parametrize(("number", "text"), [(512, "512"), (5504, "5.5 k"), (1_682_432, "1.68 M"), (2_100_000_000, "2.10 G")])
def test_counts_are_short(number: int, text: str) -> None:
    assert said_count(number) == text
