"""The trainer: each system is trained once and kept; a search for weights is told the right loss; what is merged and judged."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples

import pomona.runs.system_trainer as trainer_module
from pomona.adapters import Adapter, Factors
from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.control import Fixed, Grasp, Grid, Trial
from pomona.data import Example
from pomona.errors import PomonaError
from pomona.importance import DeltaSensitivity, Magnitude
from pomona.merging import merge
from pomona.metrics import Chrf
from pomona.pruning import pruned_count
from pomona.runs.recipe import Data, FirstPass, Lora, Merge, Recipe, Source
from pomona.runs.recipe_merge import CoefficientSettings
from pomona.runs.sources import SourceAdapter, weighted
from pomona.runs.store import RunStore
from pomona.runs.system_trainer import SystemTrainer
from pomona.tuning.fit import fit
from pomona.tuning.progress import Silent
from pomona.tuning.settings import FitData, Fitted, Pruning, Tuning

RECIPE = Recipe(
    data=Data(train="x.jsonl"), sources=(Source(name="a", adapter=Path("a")),), tuning=Tuning(batch_size=3, dropout=0.5)
)


class Notes(Silent):
    """A progress display that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def begin(self, stage: str, total: int) -> None:
        self.said.append((stage, total))

    def advance(self, done: int, note: str = "") -> None:
        self.said.append((done, note))

    def end(self, note: str = "") -> None:
        self.said.append((note,))


@pytest.fixture
def backbone() -> Backbone:
    return tiny_backbone()


def trainer(folder: Path, backbone: Backbone) -> SystemTrainer:
    train = [*tiny_examples(5, seed=1), *tiny_examples(2, seed=4, completion=2)]
    data = FitData(train, tiny_examples(3, seed=2), tiny_examples(3, seed=3))
    resume = (folder / "run").exists()
    store = RunStore(folder / "run", RECIPE.yaml(), resume=resume)
    store.begin()
    return SystemTrainer(RECIPE, backbone, data, store, Notes(), [])


def two_sources(backbone: Backbone) -> list[SourceAdapter]:
    adapters = [tiny_adapter(backbone, seed=1), tiny_adapter(backbone, seed=2, rank=2, scaling=1.5)]
    return [SourceAdapter(name, "", adapter, weight) for name, adapter, weight in zip("ab", adapters, (1.0, -0.5), strict=True)]


def shop_for(folder: Path, backbone: Backbone, **changes: Any) -> SystemTrainer:
    """A trainer with two sources, whose runs are two steps long."""
    values: dict[str, Any] = {
        "data": Data(train="x.jsonl"),
        "sources": tuple(Source(name=name, adapter=Path(name)) for name in "ab"),
        "tuning": Tuning(epochs=2, batch_size=4, learning_rate=0.01),
        "lora": Lora(rank=2, alpha=4),
        "controller": Fixed(0.5),
    }
    recipe = Recipe(**values | changes)
    data = FitData(tiny_examples(4, seed=1), tiny_examples(3, seed=2), tiny_examples(3, seed=3))
    store = RunStore(folder / "run", recipe.yaml(), resume=(folder / "run").exists())
    store.begin()
    store.clear_history()
    return SystemTrainer(recipe, backbone, data, store, Silent(), two_sources(backbone))


def history(shop: SystemTrainer) -> list[tuple[str, str, int]]:
    lines = (shop.store.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [(event["system"], event["kind"], event["step"]) for event in map(json.loads, lines)]


def told(*systems: str) -> list[tuple[str, str, int]]:
    """What runs of two steps tell, one after the other."""
    return [(system, kind, step) for system in systems for step in (1, 2) for kind in ("step", "epoch")]


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The systems that were trained, in order."""
    systems: list[str] = []

    def spy(*args: Any, system: str, **options: Any) -> Fitted:
        systems.append(system)
        return fit(*args, system=system, **options)

    monkeypatch.setattr(trainer_module, "fit", spy)
    return systems


def refuse(loss: Callable[[Adapter], float]) -> Adapter:
    raise AssertionError("searched again")


@torch.no_grad()
def mean_loss_per_token(backbone: Backbone, adapter: Adapter, data: FitData) -> float:
    """By the definition, an example at a time."""
    total, count = 0.0, 0
    with attached(backbone, [adapter]):
        for example in data.train:
            tokens = torch.tensor(example.tokens)
            logits = backbone.model(input_ids=tokens[None]).logits[0].double()
            first = example.completion_start
            total += float(F.cross_entropy(logits[first - 1 : -1], tokens[first:], reduction="sum"))
            count += len(tokens) - first
    return total / count


def test_the_loss_is_the_mean_over_the_training_completions_tokens(tmp_path: Path, backbone: Backbone) -> None:
    shop = trainer(tmp_path, backbone)
    tried = [tiny_adapter(backbone, seed=seed) for seed in (1, 2)]
    told: list[float] = []

    def find(loss: Callable[[Adapter], float]) -> Adapter:
        told.extend(map(loss, tried))
        return tried[1]

    shop.search("it", 2, find)
    assert told == pytest.approx([mean_loss_per_token(backbone, adapter, shop.data) for adapter in tried], rel=1e-5)
    assert told[0] != pytest.approx(told[1], rel=1e-3)


def test_what_was_found_is_kept_and_not_searched_again(tmp_path: Path, backbone: Backbone) -> None:
    shop = trainer(tmp_path, backbone)
    best = tiny_adapter(backbone, seed=1, scaling=1.0)

    def find(loss: Callable[[Adapter], float]) -> Adapter:
        loss(best)
        loss(best)
        return best

    found = shop.search("it", 2, find)
    assert found.fingerprint() == best.fingerprint()
    assert shop.trained["it"].tokens == 2 * sum(map(len, shop.data.train))
    assert shop.trained["it"].train_seconds > 0
    assert isinstance(shop.progress, Notes)
    stage, *steps, end = shop.progress.said
    assert stage == ("searching it", 2)
    assert steps == [(1, steps[0][1])] * 2
    assert str(steps[0][1]).startswith("loss ")
    assert str(end[0]).startswith("2 losses, the lowest ")
    again = trainer(tmp_path, backbone)
    assert again.search("it", 2, refuse).fingerprint() == found.fingerprint()
    first, second = ({**vars(one.trained["it"]), "adapter": None} for one in (shop, again))
    assert first == second
    assert again.progress.said == []  # pyright: ignore[reportAttributeAccessIssue]


def test_a_search_that_was_interrupted_begins_again(tmp_path: Path, backbone: Backbone) -> None:
    best = tiny_adapter(backbone, seed=1)
    asked: list[str] = []

    def broken(loss: Callable[[Adapter], float]) -> Adapter:
        loss(best)
        raise KeyboardInterrupt

    def whole(loss: Callable[[Adapter], float]) -> Adapter:
        asked.append("from the beginning")
        loss(best)
        return best

    before = {path: type(module) for path, module in backbone.model.named_modules()}
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, backbone).search("it", 2, broken)
    assert {path: type(module) for path, module in backbone.model.named_modules()} == before
    shop = trainer(tmp_path, backbone)
    shop.search("it", 2, whole)
    assert asked == ["from the beginning"]
    assert shop.trained["it"].tokens == sum(map(len, shop.data.train))


def test_a_loss_that_is_not_a_number_stops_it(tmp_path: Path, backbone: Backbone) -> None:
    good = tiny_adapter(backbone, seed=1)
    module = good.modules[1]  # of the values; a query that is not a number is masked out
    bad = Adapter({module: Factors(good[module].A * math.inf, good[module].B)})
    shop = trainer(tmp_path, backbone)
    with pytest.raises(PomonaError, match=r"^the training loss of it is not finite \(got nan\)\. Load the model in dtype float32"):
        shop.search("it", 1, lambda loss: [loss(bad), good][1])  # pyright: ignore[reportArgumentType, reportReturnType]


# What is merged ---------------------------------------------------------------------------------------------------------

STILL = Tuning(epochs=1, batch_size=4, learning_rate=1e-9)
"""The factors stay where they begin."""


def total(parts: list[tuple[float, Adapter]], module: str) -> torch.Tensor:
    return torch.stack([weight * adapter[module].delta() for weight, adapter in parts]).sum(dim=0)


def test_a_target_lora_is_merged_and_trained_once_though_it_is_a_baseline_too(
    tmp_path: Path, backbone: Backbone, fitted: list[str]
) -> None:
    for again in (False, True):  # the second time everything is found in the folder
        shop = shop_for(tmp_path, backbone, merge=Merge(target=True), controller=Fixed(0.0))
        main = shop.train_main()
        target = shop.train_new("target_lora")
        shop.train_merge("merge_finetune")
        assert fitted == ["target_lora", "pomona", "merge_finetune"]
        assert history(shop) == told("target_lora", "pomona", "merge_finetune"), f"again: {again}"
        assert list(shop.trained) == ["target_lora", "pomona", "merge_finetune"]
        assert {main[module].rank for module in main} == {3 + 2 + 2}
        assert target[main.modules[0]].rank == 2


@pytest.mark.parametrize(
    "how", [Merge(), Merge(method="linear", target=True), Merge(method="svd", rank=4)], ids=lambda how: how.method
)
def test_other_sources_are_merged_and_trained_as_the_run_s_own(tmp_path: Path, backbone: Backbone, how: Merge) -> None:
    """The control `random_sources`: the same training, to the bit, of whatever sources are given."""
    others = [tiny_adapter(backbone, seed=5), tiny_adapter(backbone, seed=6, rank=2, scaling=1.5)]
    shop = shop_for(tmp_path / "one", backbone, merge=how)
    given = shop.train_merge("random_sources", others)
    weights = [source.weight for source in shop.prepared]
    own = shop_for(tmp_path / "two", backbone, merge=how)
    own.prepared = [SourceAdapter(name, "", one, weight) for name, one, weight in zip("ab", others, weights, strict=True)]
    assert given.fingerprint() == own.train_merge("merge_finetune").fingerprint()
    assert given.fingerprint() != shop.train_merge("merge_finetune").fingerprint(), "the run's own sources are as they were"


@pytest.mark.parametrize(
    ("how", "rank"),
    [(Merge(target=True), 3 + 2 + 8), (Merge(method="linear", target=True), 8), (Merge(method="svd", rank=4, target=True), 4)],
    ids=lambda how: getattr(how, "method", ""),
)
def test_the_opponent_of_a_merge_with_the_target_lora_is_one_of_its_own_where_its_shape_differs(
    tmp_path: Path, backbone: Backbone, fitted: list[str], how: Merge, rank: int
) -> None:
    shop = shop_for(tmp_path, backbone, merge=how, lora=Lora(), controller=Fixed(0.0))
    shop.train_main()
    opponent = shop.train_new("target_lora")
    merged = ["target_lora", "pomona"] if how.method == "linear" else ["merged_target", "pomona", "target_lora"]
    assert fitted == merged
    assert {opponent[module].rank for module in opponent} == {rank}
    assert shop.trained[merged[0]].sparsity[opponent.modules[0]].entries_A == 8 * opponent[opponent.modules[0]].in_features


def test_the_opponent_of_a_pair_has_its_rank_and_no_module_that_nothing_is_merged_into(tmp_path: Path, backbone: Backbone) -> None:
    weight = [{"filter": "layers.0", "value": 0.0}, {"value": 1.0}]
    sources = tuple(Source(name=name, adapter=Path(name), weight=weight) for name in "ab")
    how = Merge(method="svd", rank=4)
    shop = shop_for(tmp_path, backbone, merge=how, lora=Lora(), controller=Fixed(0.0), sources=sources)
    shop.prepared = [dataclasses.replace(source, weight=weight) for source in shop.prepared]
    main, opponent = shop.train_main(), shop.train_new("target_lora")
    assert {module.partition("self_attn")[0] for module in main} == {"model.layers.1."}
    assert {module: main[module].rank for module in main} == {module: opponent[module].rank for module in opponent}


@pytest.mark.parametrize("how", [Merge(target=True), Merge(method="svd", rank=7, target=True)], ids=lambda how: how.method)
def test_the_target_lora_counts_one_beside_the_sources_weights(tmp_path: Path, backbone: Backbone, how: Merge) -> None:
    shop = shop_for(tmp_path, backbone, merge=how, controller=Fixed(0.0), tuning=STILL)
    main = shop.train_main()
    target = shop.train_new("target_lora")
    assert target[target.modules[0]].B.abs().max() > 0
    for module in main:
        parts = [(1.0, shop.sources[0]), (-0.5, shop.sources[1]), (1.0, target)]
        torch.testing.assert_close(main[module].delta(), total(parts, module), atol=1e-5, rtol=0)


def test_the_target_lora_is_weighted_by_its_norm_as_the_sources_are(tmp_path: Path, backbone: Backbone) -> None:
    how = Merge(method="svd", rank=7, target=True, weights="nan")
    shop = shop_for(tmp_path, backbone, merge=how, controller=Fixed(0.0), tuning=STILL)
    shop.prepared = weighted(shop.recipe, shop.prepared)
    shop.train_main()
    target = shop.train_new("target_lora")
    norms = [torch.cat([one.delta(module).flatten() for module in one]).norm().item() for one in (*shop.sources, target)]
    mean = 2 / (1 / norms[0] + 1 / norms[1])
    used = [weight * mean / norm for weight, norm in zip((1.0, -0.5, 1.0), norms, strict=True)]
    assert shop.starts["pomona"].provenance["weights"] == pytest.approx(used, rel=1e-4)


def test_linear_trains_sums_of_factors_and_the_paper_s_code_leaves_the_scaling_out(tmp_path: Path, backbone: Backbone) -> None:
    for paper in (False, True):
        shop = shop_for(tmp_path / str(paper), backbone, merge=Merge(method="linear", paper=paper), tuning=STILL)
        merged = shop.train_merge("merge_finetune")
        for module in merged:
            scalings = (1.0, 1.0) if paper else (0.7, 1.5)
            A, B = torch.zeros_like(merged[module].A), torch.zeros_like(merged[module].B)
            for source, scaling in zip(shop.prepared, scalings, strict=True):
                share = float(source.weight) * scaling  # pyright: ignore[reportArgumentType]
                pair = source.adapter[module]
                A[: pair.rank] += math.copysign(abs(share) ** 0.5, share) * pair.A
                B[:, : pair.rank] += abs(share) ** 0.5 * pair.B
            torch.testing.assert_close(merged[module].delta(), B @ A, atol=1e-5, rtol=0)


def test_any_other_method_trains_one_pair(tmp_path: Path, backbone: Backbone) -> None:
    shop = shop_for(tmp_path, backbone, merge=Merge(method="svd", rank=2), tuning=STILL)
    main = shop.train_main()
    start = merge(shop.sources, "svd", [1.0, -0.5], 2, 0)
    assert {name: one.provenance["rank_loss"] for name, one in shop.starts.items()} == {"pomona": start.provenance["rank_loss"]}
    for module in main:
        A = main[module].A
        assert A.shape[0] == 2
        assert int((A == 0).sum()) == pruned_count(0.5, A.numel())
        torch.testing.assert_close(A[A != 0], start[module].A[A != 0], atol=1e-6, rtol=0)


def test_frozen_sources_are_named_and_weights_are_trained(tmp_path: Path, backbone: Backbone) -> None:
    shop = shop_for(tmp_path, backbone, merge=Merge(frozen=("a",), weights_learning_rate=0.05))
    main = shop.train_main()
    frozen = shop.sources[0]
    for module in main:
        assert torch.equal(main[module].A[2:], frozen[module].A)
        assert not torch.equal(main[module].A[:2], shop.sources[1][module].A)
    for weights in shop.trained["pomona"].merge_weights.values():
        assert weights[0] == 1.0
        assert weights[1] != -0.5


def test_coefficients_are_trained_over_a_finished_target_lora_and_the_sources(
    tmp_path: Path, backbone: Backbone, fitted: list[str]
) -> None:
    settings = CoefficientSettings(start="target", learning_rate=0.1)
    how = Merge(target=True, train="coefficients", coefficients=settings)
    for _ in range(2):  # the second time everything is found in the folder
        shop = shop_for(tmp_path, backbone, merge=how, controller=Fixed(0.0), lora=Lora())
        main, target = shop.train_main(), shop.train_new("target_lora")
        assert fitted == ["target_lora", "pomona"]
        trained = shop.trained["pomona"]
        assert trained.answer is not None
        assert trained.answer.prune_ratio == 0.0
        assert trained.coefficients == 3 * len(main)
        for module in main:
            weights = trained.merge_weights[module]
            assert weights == pytest.approx([0.0, 0.0, 1.0], abs=0.3)
            assert weights[2] != 1.0
            parts = list(zip(weights, [*shop.sources, target], strict=True))
            torch.testing.assert_close(main[module].delta(), total(parts, module), atol=1e-5, rtol=0)


def test_the_target_lora_s_own_coefficients_are_trained_after_it_and_it_is_trained_once(
    tmp_path: Path, backbone: Backbone, fitted: list[str]
) -> None:
    for _ in range(2):  # the second time everything is found in the folder
        shop = shop_for(tmp_path, backbone)
        made, target = shop.train_recalibrated("target_recalibrated"), shop.train_new("target_lora")
        assert fitted == ["target_lora", "target_recalibrated"]
        trained = shop.trained["target_recalibrated"]
        assert trained.coefficients == len(made)
        for module in made:
            (weight,) = trained.merge_weights[module]
            assert weight == pytest.approx(1.0, abs=0.2)
            assert weight != 1.0
            assert torch.equal(made[module].A, target[module].A)
            torch.testing.assert_close(made[module].delta(), weight * target[module].delta(), atol=1e-6, rtol=1e-5)


def test_coefficients_first_and_factors_after_in_one_run(tmp_path: Path, backbone: Backbone) -> None:
    shop = shop_for(tmp_path, backbone, merge=Merge(train=("coefficients", "factors"), frozen=("a",)))
    main = shop.train_main()
    shop.train_merge("merge_finetune")
    steps = [event for event in shop.trained["pomona"].history if event["kind"] == "step"]
    assert [(event["trained"], event["prune_ratio"]) for event in steps] == [("coefficients", 0.0), ("factors", 0.5)]
    assert [event["trained"] for event in shop.trained["merge_finetune"].history if "trained" in event] == [
        "coefficients",
        "factors",
    ]
    for module in main:
        frozen, weights = shop.sources[0][module], shop.trained["pomona"].merge_weights[module]
        assert weights[0] != 1.0
        assert torch.equal(main[module].A[2:], frozen.A)
        torch.testing.assert_close(main[module].B[:, 2:], weights[0] * frozen.scaling * frozen.B, atol=1e-6, rtol=1e-6)
        assert int((main[module].A[:2] == 0).sum()) == pruned_count(0.5, main[module].A[:2].numel())


@pytest.mark.parametrize("start", ["given", "zero"])
def test_coefficients_start_at_the_given_weights_or_at_zero(tmp_path: Path, backbone: Backbone, start: Any) -> None:
    how = Merge(train="coefficients", coefficients=CoefficientSettings(start=start, learning_rate=1e-9, unit="adapter"))
    shop = shop_for(tmp_path, backbone, merge=how, controller=Fixed(0.0), tuning=STILL)
    shop.train_main()
    for weights in shop.trained["pomona"].merge_weights.values():
        assert weights == pytest.approx([1.0, -0.5] if start == "given" else [0.0, 0.0], abs=1e-6)


def test_with_every_source_frozen_the_rate_of_the_weights_trains_the_weights(tmp_path: Path, backbone: Backbone) -> None:
    shop = shop_for(tmp_path, backbone, merge=Merge(frozen=("a", "b"), weights_learning_rate=0.05), controller=Fixed(0.0))
    main = shop.train_main()
    for module, weights in shop.trained["pomona"].merge_weights.items():
        assert all(weight != start for weight, start in zip(weights, [1.0, -0.5], strict=True))
        parts = list(zip(weights, shop.sources, strict=True))
        torch.testing.assert_close(main[module].delta(), total(parts, module), atol=1e-5, rtol=0)
    assert shop.main_ranks == dict.fromkeys(main, 2)  # as a target LoRA of the recipe's rank


def test_the_paper_s_norms_serve_the_paper_s_metric(tmp_path: Path, backbone: Backbone) -> None:
    pruning = Pruning(metric=DeltaSensitivity(), paper=True)
    shop = shop_for(tmp_path, backbone, merge=Merge(method="linear", paper=True), pruning=pruning)
    main = shop.train_main()
    assert all(int((main[module].A == 0).sum()) == pruned_count(0.5, main[module].A.numel()) for module in main)


def test_the_first_of_two_passes_has_the_metric_and_the_steps_of_its_own(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, tuple[Tuning, Pruning]] = {}

    def spy(attachment: Any, data: Any, tuning: Tuning, *, pruning: Pruning, system: str, **options: Any) -> Fitted:
        given[system] = tuning, pruning
        return fit(attachment, data, tuning, pruning=pruning, system=system, **options)

    monkeypatch.setattr(trainer_module, "fit", spy)
    final = Tuning(epochs=2, batch_size=1, accumulation_steps=4, learning_rate=0.01, patience_epochs=1)
    two_passes = Grasp(mode="two_pass", interval_steps=2)
    for name, pruning in (
        ("own", Pruning(metric=DeltaSensitivity())),
        ("published", Pruning(metric=DeltaSensitivity(), paper=True)),
    ):
        first = FirstPass(metric=Magnitude(), epochs=3, accumulation_steps=2, patience_epochs=2)
        shop_for(tmp_path / name, backbone, tuning=final, pruning=pruning, controller=two_passes, search=first).train_main()
        assert given["pomona_search"][0] == dataclasses.replace(final, epochs=3, accumulation_steps=2, patience_epochs=2)
        assert given["pomona_search"][1] == Pruning(metric=Magnitude())
        assert given["pomona"] == (final, pruning)
    # Where nothing is said, it is as the second, but that no patience ends it.
    shop_for(tmp_path / "plain", backbone, tuning=final, controller=two_passes).train_main()
    assert given["pomona_search"] == (dataclasses.replace(final, patience_epochs=None), given["pomona"][1])


# What rewards the controller --------------------------------------------------------------------------------------------


def test_a_controller_is_rewarded_by_the_loss_or_by_what_the_recipe_weighs(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def spy(*args: Any, costs: Any, **options: Any) -> Fitted:
        given.append(costs)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "fit", spy)
    examples = [Example(str(place), "a prompt", " it", ("it",), "a prompt") for place in range(3)]
    for reward in ("loss", {"chrf": 2.0, "loss": 0.5}):
        shop = shop_for(tmp_path / str(len(given)), backbone, controller=Grasp(), reward=reward)
        shop.micro_dev = examples
        with pytest.raises(KeyboardInterrupt):
            shop.train_main()
    assert given[0] is None
    assert given[1].keywords["examples"] is examples
    assert given[1].keywords["encoded"] is shop.data.micro_dev
    assert given[1].keywords["weights"] == {"chrf": 2.0, "loss": 0.5}
    assert given[1].keywords["metrics"] == {"chrf": Chrf()}


# A search over whole runs -----------------------------------------------------------------------------------------------

GRID = Grid((0.2, 0.5, 1.0))


def test_a_grid_is_a_run_at_each_ratio_and_the_best_of_them_is_the_main_system(
    tmp_path: Path, backbone: Backbone, fitted: list[str]
) -> None:
    shop = shop_for(tmp_path, backbone, controller=GRID)
    main = shop.train_main()
    assert fitted == ["pomona_0.2", "pomona_0.5", "pomona_1.0"]
    assert history(shop) == told(*fitted)
    alone = {}
    for prune_ratio in GRID.prune_ratios:
        fixed = shop_for(tmp_path / str(prune_ratio), backbone, controller=Fixed(prune_ratio))
        alone[prune_ratio] = fixed.train_main(), fixed.trained["pomona"]
    answer = shop.trained["pomona"].answer
    assert answer is not None
    best = max(alone, key=lambda ratio: sum(alone[ratio][1].dev_scores))
    assert answer.prune_ratio == best
    assert main.fingerprint() == alone[best][0].fingerprint()
    assert shop.trained["pomona"].dev_scores == alone[best][1].dev_scores
    trials = [Trial(ratio, trained.dev_scores) for ratio, (_, trained) in alone.items()]
    assert answer == GRID.choose(trials, 0)  # few examples: every sign pattern is looked at, and no seed counts
    assert [point.prune_ratio for point in answer.curve] == list(GRID.prune_ratios)
    others = [f"pomona_{ratio}" for ratio in GRID.prune_ratios if ratio != best]
    assert list(shop.trained) == [*others, "pomona"]
    assert shop.learned is shop.trained["pomona"]


def test_a_grid_goes_on_with_the_ratio_at_which_it_was_stopped(
    tmp_path: Path, backbone: Backbone, fitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = shop_for(tmp_path / "whole", backbone, controller=GRID)
    adapter = expected.train_main()
    save = RunStore.save_trained
    for last in ("pomona_0.2", "pomona_0.5"):
        fitted.clear()

        def killed(store: RunStore, system: str, *kept: Any, last: str = last) -> Fitted:
            found = save(store, system, *kept)
            if system == last:
                raise KeyboardInterrupt
            return found

        shop = shop_for(tmp_path, backbone, controller=GRID)
        with monkeypatch.context() as patch:
            patch.setattr(RunStore, "save_trained", killed)
            with pytest.raises(KeyboardInterrupt):
                shop.train_main()
        assert fitted == [last]
    fitted.clear()
    shop = shop_for(tmp_path, backbone, controller=GRID)
    assert shop.train_main().fingerprint() == adapter.fingerprint()
    assert fitted == ["pomona_1.0"]
    assert history(shop) == history(expected)
    assert shop.trained["pomona"].answer == expected.trained["pomona"].answer


def test_the_second_of_two_passes_has_the_published_masks_of_the_first(tmp_path: Path, backbone: Backbone) -> None:
    """Each adapter of the sum loses its own entries, so the sum keeps what either keeps; explicit settings are above that."""
    counts: dict[str | None, int] = {}
    for masks in (None, "merged"):
        two_passes = Grasp(mode="two_pass", interval_steps=1, published=("masks_by_adapter",))
        pruning = Pruning(metric=Magnitude(), masks=masks)  # pyright: ignore[reportArgumentType]
        shop = shop_for(tmp_path / str(masks), backbone, merge=Merge(method="linear"), pruning=pruning, controller=two_passes)
        main = shop.train_main()
        answer = shop.trained["pomona"].answer
        assert answer is not None
        counts[masks] = sum(int((main[module].A == 0).sum()) for module in main)
        whole = sum(pruned_count(answer.prune_ratio, main[module].A.numel()) for module in main)
        assert (counts[masks] == whole) is (masks == "merged")
    assert counts[None] < counts["merged"]
