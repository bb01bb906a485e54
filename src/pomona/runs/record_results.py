"""What came out of a run, in its record: scores, comparisons, the ratio and the state of the modules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pomona.adapters import Adapter, layer_number
from pomona.control import Search
from pomona.data import Example, Splits
from pomona.evaluation.answers import Answers
from pomona.evaluation.compare import compare, corrected
from pomona.evaluation.scores import Score, example_groups, score
from pomona.metrics import describe_answers
from pomona.pruning import layer_groups
from pomona.ratios import DevCheck, GroupRatio, RoundRecord
from pomona.runs.recipe import Recipe
from pomona.runs.record import AnswersRecord, Estimate, ModuleRecord, RunRecord, SystemDescription
from pomona.runs.system_trainer import MAIN, TARGET, SystemTrainer, system_of
from pomona.tuning.settings import Fitted, Sparsity


def describe_results(
    record: RunRecord, trainer: SystemTrainer, splits: Splits, adapter: Adapter | None, answers: Mapping[str, Answers]
) -> None:
    """What came out: scores, comparisons, the ratio, what it cost, the modules, warnings.

    `adapter` is that of the main system, or of the one baseline that was made (None for the bare model).
    """
    _describe_scores(record, trainer.recipe, splits, answers)
    for name, given in answers.items():
        _describe_answers(record.systems[name], given, splits, trainer.recipe.task.language)
    if adapter is not None:
        record.fingerprints["adapter"] = adapter.fingerprint()
        if MAIN in answers:
            _describe_main(record, trainer)
    for name, trained in trainer.trained.items():
        record.tokens[name] = trained.tokens
    for name, seconds in _train_seconds(trainer.trained).items():
        if name in record.systems:
            record.systems[name].train_seconds = seconds
    own = [trained for trained in trainer.trained.values() if not trained.reused]
    reused = [trained for trained in trainer.trained.values() if trained.reused]
    record.timing.train_seconds = sum(trained.train_seconds for trained in own)
    record.timing.probe_seconds = sum(trained.probe_seconds for trained in own)
    record.timing.reused_seconds = sum(trained.train_seconds + trained.probe_seconds for trained in reused)
    record.timing.evaluate_seconds = sum(given.seconds for given in answers.values())


def _train_seconds(trained: Mapping[str, Fitted]) -> Mapping[str, float]:
    """What each system cost to train; the main one with the pass that learned its ratio, or the runs that it was picked from."""
    found: dict[str, float] = {}
    for name, one in trained.items():
        system = system_of(name)
        found[system] = found.get(system, 0.0) + one.train_seconds + one.probe_seconds
    return found


def _describe_main(record: RunRecord, trainer: SystemTrainer) -> None:
    """The ratio, and the modules as they were pruned."""
    _describe_ratio(record, trainer)
    trained = trainer.trained[MAIN]
    record.modules = [_module(name, sparsity, trained) for name, sparsity in trained.sparsity.items()]
    entries = sum(one.entries_A + one.entries_B for one in trained.sparsity.values())
    # A share times its entries is a whole number, but for rounding.
    zeros = sum(round(one.A * one.entries_A) + round(one.B * one.entries_B) for one in trained.sparsity.values())
    record.sparsity = zeros / entries
    record.systems[MAIN].sparsity = record.sparsity
    record.systems[MAIN].prune_ratio = record.prune_ratio


def _describe_scores(record: RunRecord, recipe: Recipe, splits: Splits, answers: Mapping[str, Answers]) -> None:
    chosen = recipe.metrics
    draws, seed = recipe.evaluation.draws, recipe.seed
    scores = {name: score(given, splits.test, chosen, draws=draws, seed=seed) for name, given in answers.items()}
    references = [example.references for example in splits.test]
    record.signatures = {name: metric.signature_for(references) for name, metric in chosen.items()}
    record.metrics = {system: {name: estimate(one) for name, one in found.items()} for system, found in scores.items()}
    groups = example_groups(splits.test)
    others = [system for system in scores if system != MAIN]
    differences = compare(MAIN, others, scores, chosen, groups=groups, draws=draws, seed=seed) if MAIN in scores else []
    for system in others:
        if system != TARGET and TARGET in scores:
            differences += compare(system, [TARGET], scores, chosen, groups=groups, draws=draws, seed=seed)
    record.comparisons = corrected(differences)


def estimate(found: Score) -> Estimate:
    """A score as the record has it."""
    return Estimate(value=found.value, low=found.low, high=found.high, n=found.n)


def answers_record(given: Answers, examples: Sequence[Example], language: str) -> AnswersRecord:
    """What a system's answers look like."""
    found = describe_answers(given.texts, [example.references for example in examples], language)
    answered = len(given.texts) - found.unscored
    return AnswersRecord(
        empty_share=found.empty_share,
        unended_share=given.unended / answered if answered and given.unended is not None else None,
        mean_words=found.mean_words,
        length_ratio=found.length_ratio,
        repetition=found.repetition,
        cut_prompts=given.cut_prompts,
    )


def _describe_answers(system: SystemDescription, given: Answers, splits: Splits, language: str) -> None:
    system.answers = answers_record(given, splits.test, language)
    system.unscored = sum(text is None for text in given.texts)


def _describe_ratio(record: RunRecord, trainer: SystemTrainer) -> None:
    learned, final = trainer.learned, trainer.trained[MAIN]
    answer = learned.answer
    assert answer is not None
    assert final.answer is not None
    record.prune_ratio = final.answer.prune_ratio
    name = trainer.recipe.resolved()["controller"]["name"]  # pyright: ignore[reportIndexIssue, reportCallIssue, reportArgumentType]
    settled = [event["dev_check"] for event in learned.history if event["kind"] == "settled"]
    check = tuple(DevCheck(*one) for one in (settled[-1] if settled else ()))  # pyright: ignore[reportGeneralTypeIssues]
    by_group = _with_layers(answer.by_group, list(learned.sparsity))
    record.answer = dataclasses.replace(answer, controller=str(name), dev_check=check, by_group=by_group)
    record.rounds = [RoundRecord.from_line(event) for event in learned.history if event["kind"] == "round"]
    controller = trainer.recipe.controller
    if isinstance(controller, Search):
        return
    changes = [one.mask_change for one in record.rounds if one.mask_change is not None]
    cleared = [one.newly_pruned for one in record.rounds if one.newly_pruned is not None]
    checked = [(one.prune_ratio, one.cost, one.dev_loss) for one in check]
    found = controller.diagnose(controller.load_state(learned.control), changes, dev_check=checked, cleared=cleared)
    record.warnings += [warning for warning in found if warning not in record.warnings]


def _with_layers(found: Sequence[GroupRatio], modules: Sequence[str]) -> tuple[GroupRatio, ...]:
    """Each group's ratio, and which layers it is for."""
    groups = layer_groups(modules, len(found)) if found else []
    numbers = [[layer for module in group if (layer := layer_number(module)) is not None] for group in groups]
    return tuple(
        dataclasses.replace(one, first_layer=min(layers), last_layer=max(layers))
        for layers, one in zip(numbers, found, strict=True)
    )


def _module(name: str, sparsity: Sparsity, trained: Fitted) -> ModuleRecord:
    weights, components = trained.merge_weights.get(name), trained.component_weights.get(name)
    return ModuleRecord(
        module=name,
        layer=layer_number(name),
        projection=name.rpartition(".")[2],
        sparsity_A=sparsity.A,
        sparsity_B=sparsity.B,
        importance=trained.importance.get(name, 0.0),
        merge_weights=None if weights is None else list(weights),
        component_weights=None if components is None else [list(one) for one in components],
        kept_by_source=list(trained.kept_by_source[name]) if name in trained.kept_by_source else None,
    )
