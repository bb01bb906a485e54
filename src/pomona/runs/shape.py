"""The shape of a LoRA that is trained from scratch on the target: as the recipe says, or as that of what the main system trains.

A fresh LoRA is the main system's opponent, and beats it or not by its modules and its size before anything else. So where the
recipe says nothing, it adapts the modules that the main system trains, at the rank that comes nearest in trained parameters.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pomona.backbone.attach import target_paths
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, TrainableMerge, trainable_merges
from pomona.merging.weights import Weight, module_weights
from pomona.runs.recipe import Lora, Merge, Recipe
from pomona.runs.sizes import is_notable, said_count, said_modules

Ranks = Mapping[str, int]
"""Module path -> R of what is trained there."""


@dataclass(frozen=True)
class Shape:
    """A LoRA to be trained from scratch: one rank on all of its modules, scaling alpha / rank."""

    modules: tuple[str, ...]
    rank: int
    alpha: float

    @property
    def ranks(self) -> Ranks:
        """Its rank by module."""
        return dict.fromkeys(self.modules, self.rank)


def trainable(merge: Merge, names: Sequence[str]) -> TrainableMerge | None:
    """How the sources' own factors are trained together; None where a static merge of them is trained as one pair.

    Args:
        merge: the recipe's.
        names: of the sources, in order.
    """
    if merge.method not in trainable_merges:
        return None
    kind = trainable_merges.create(merge.method, merge.parameters)
    everyone = frozenset(range(len(names) + merge.target))
    frozen = frozenset(place for place, name in enumerate(names) if name in merge.frozen)
    if (learned := merge.learned_weights(names)) is not None:
        return replace(kind, frozen=frozen if merge.trains_factors(names) else everyone, coefficients=learned)
    return replace(kind, frozen=frozen, train_weights=merge.weights_learning_rate is not None, paper=merge.paper)


def trained_ranks(ranks: Sequence[Ranks], weights: Sequence[Weight], how: TrainableMerge) -> dict[str, int]:
    """The rank that is trained in every module that is trained, as the kind of merge counts it.

    Args:
        ranks: of each adapter.
        weights: of each adapter; where one is 0 the adapter takes no part.
        how: how they are trained together.
    """
    modules = list(dict.fromkeys(module for one in ranks for module in one))
    found: dict[str, int] = {}
    for module, w_K in module_weights(weights, modules).items():
        parts = [
            one[module]
            for place, (one, w) in enumerate(zip(ranks, w_K, strict=True))
            if one.get(module, 0) and w != 0 and place not in how.frozen
        ]
        if parts:
            found[module] = how.rank(parts)
    return found


def main_ranks(recipe: Recipe, sources: Sequence[Ranks], backbone: Backbone) -> dict[str, int] | None:
    """What the main system trains, as far as shapes alone tell; None where it is one pair that a method must make first.

    Where merge weights alone are trained, which are far fewer than the entries of any LoRA, the shape is that of the target LoRA
    that `merge.target` puts among the merged adapters.

    Args:
        recipe: the run's.
        sources: the rank by module of each source.
        backbone: the model.

    Raises:
        InputError: the recipe names a module that the model does not have; a merge weight that leaves a module open.
    """
    if not recipe.trains_factors:
        return dict(merged_target(recipe, sources, backbone).ranks)
    how = trainable(recipe.merge, [source.name for source in recipe.sources])
    return None if how is None else trained_ranks(*merged_parts(recipe, sources, backbone), how)


def taking_part(recipe: Recipe, sources: Sequence[Ranks], backbone: Backbone) -> list[str]:
    """The modules in which any adapter that is merged has a weight other than 0, trained or not."""
    return list(trained_ranks(*merged_parts(recipe, sources, backbone), Concat()))


def merged_target(recipe: Recipe, sources: Sequence[Ranks], backbone: Backbone) -> Shape:
    """Of the target LoRA that is merged (`merge.target`): as `lora` says, by default on all modules of the sources.

    Raises:
        InputError: the recipe names a module that the model does not have.
    """
    lora = recipe.lora
    modules = _modules(lora, {module for one in sources for module in one}, backbone)
    return Shape(modules, lora.own_rank, lora.alpha)


def opponent(recipe: Recipe, trained: Ranks, backbone: Backbone) -> Shape:
    """Of the target LoRA that the main system is compared with.

    What the recipe gives in `lora` stays. Else it has the modules that the main system trains, and the rank nearest to it in
    trained parameters, the higher one of two equally near. Where the rank follows, the scaling stays at alpha over the default
    rank, as that of an adapter in a concatenation does when another is put beside it.

    Args:
        recipe: the run's.
        trained: what the main system trains.
        backbone: the model.

    Raises:
        InputError: the recipe names a module that the model does not have.
    """
    lora, shapes = recipe.lora, backbone.shapes()
    modules = _modules(lora, set(trained), backbone)
    if lora.rank is not None:
        return Shape(modules, lora.rank, lora.alpha)
    each = sum(map(sum, (shapes[module] for module in modules)))
    low = max(1, parameters(trained, shapes) // each)
    rank = min((low + 1, low), key=lambda rank: abs(rank * each - parameters(trained, shapes)))
    return Shape(modules, rank, lora.alpha * rank / lora.own_rank)


def merges_its_opponent(recipe: Recipe, sources: Sequence[Ranks], backbone: Backbone) -> bool:
    """Whether the target LoRA that is merged has the shape of the one that the run is compared with, so that both are one."""
    known = main_ranks(recipe, sources, backbone)
    if known is None and recipe.lora.rank is not None:  # then the rank of the pair, which is not there yet, has no say
        known = dict.fromkeys(taking_part(recipe, sources, backbone), 1)
    return known is not None and opponent(recipe, known, backbone) == merged_target(recipe, sources, backbone)


def parameters(ranks: Ranks, shapes: Mapping[str, tuple[int, int]]) -> int:
    """Entries of both factors in all modules: `sum_m R_m (O_m + I_m)`."""
    return sum(rank * sum(shapes[module]) for module, rank in ranks.items())


def differences(other: Ranks, main: Ranks, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """In what a trained system, `it`, differs from the main system, one clause each; empty where in nothing.

    Args:
        other: what it trains.
        main: what the main system trains.
        shapes: module -> (O, I), of the model.
    """
    found: list[str] = []
    if set(other) != set(main):
        found.append(f"it adapts {said_modules(other)}, Pomona {said_modules(main)}")
    own, reference = parameters(other, shapes), parameters(main, shapes)
    if is_notable(own, reference):
        found.append(f"it trains {said_count(own)} parameters, Pomona {said_count(reference)}")
    return found


def warning(label: str, found: Sequence[str], lora: Lora) -> str:
    """What is said of a trained baseline that differs from the main system.

    Args:
        label: of the baseline.
        found: its `differences`.
        lora: the recipe's.
    """
    given = [f"lora.{name}" for name in ("rank", "target_modules") if getattr(lora, name) is not None]
    reason = f"the recipe gives {' and '.join(given)}; left out, they follow Pomona" if given else "no whole rank comes nearer"
    return f"{label} is not trained like Pomona, so a difference between them may come from that: {'; '.join(found)} ({reason})"


def merged_parts(recipe: Recipe, sources: Sequence[Ranks], backbone: Backbone) -> tuple[Sequence[Ranks], Sequence[Weight]]:
    """The ranks and the weights of all adapters that are merged."""
    weights: list[Weight] = [source.weight for source in recipe.sources]
    if recipe.merge.target:
        return [*sources, merged_target(recipe, sources, backbone).ranks], [*weights, 1.0]
    return sources, weights


def _modules(lora: Lora, others: Collection[str], backbone: Backbone) -> tuple[str, ...]:
    """The modules that the recipe names, or the others; in the model's order, which the random start goes by."""
    if lora.target_modules is not None:
        return tuple(target_paths(backbone, lora.target_modules))
    return tuple(path for path in backbone.linear_modules() if path in others)
