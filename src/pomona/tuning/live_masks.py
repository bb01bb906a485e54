"""Pruning of a model in training: importance of the current factors, their masks, and their optimizer moments.

There are three regimes; a run that learns its ratio uses first `held`, then one of the others:
    held       a committed mask stays in force; a stash keeps the pruned values, and the next commit can revive them (GRASP); with
               feedback, the stashed values are trained
    reselected after each step the lowest entries are reset; they can grow again before the next step (ALM)
    fed back   after each step the lowest entries of the dense weights are pruned: the dense weights are the kept entries and the
               stash, and the gradients of the pruned model train them (dynamic pruning with feedback, arXiv 2006.07253)
In all, the number of pruned entries is exact after each selection. The moments of pruned entries are cleared when a mask is
selected or committed: otherwise momentum would revive these entries at once. While a mask is held without feedback, pruned entries
have no moments; a controller may request the behaviour of the published code instead (`pomona.control.published`). Under a settled
ratio with feedback, the moments are those of the dense weights, and nothing clears them.

A mask applies to the merged factors; if the factors of several adapters are summed, it applies to each of them. Alternatively each
adapter has its own mask (`Pruning.masks`), with the layout of the parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Bool
from pydantic import ConfigDict
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.attach import Attachment
from pomona.backbone.stacks import Stack
from pomona.backbone.trainable.base import AdaptedModule
from pomona.control import Handling
from pomona.errors import InputError
from pomona.importance import ModuleStatistics, mean_update_size
from pomona.pruning import (
    ModuleMasks,
    ModuleScores,
    no_nan,
    select_masks,
    select_masks_by_adapter,
    select_masks_by_source,
)
from pomona.tuning.pruned_factor import PrunedFactor
from pomona.tuning.settings import Pruning
from pomona.tuning.state import HOLDS_TENSORS
from pomona.tuning.statistics import Statistics

T = TypeVar("T")

Masks = dict[str, Bool[Tensor, "..."]]
"""`path.A` and `path.B` -> mask of this merged factor, or of the parameter of this name; True = pruned."""


class MaskChange(NamedTuple):
    """Shares of all entries whose mask a commit changed, and that it newly pruned (their moments were cleared)."""

    changed: float
    newly_pruned: float


@dataclass
class MaskState:
    """The state of the masks, by the name of a parameter.

    Args:
        masks: mask of the parameter or of the merged factor; True = pruned.
        stash: the value of a pruned entry if it is revived.
        reset: the value of an entry while it is pruned; None means 0.
        kept_scores: module -> importance, while `keep_scores` is in effect.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    masks: dict[str, Tensor]
    stash: dict[str, Tensor]
    reset: dict[str, Tensor | None]
    kept_scores: dict[str, ModuleScores] = field(default_factory=dict)


class LiveMasks:
    """The masks, stashes and moments of every factor of an attachment.

    Args:
        attachment: its factors are pruned; their current values are the reset values of `reset: initial`.
        pruning: the settings.
        statistics: the input of importance.
        optimizer: its moments are cleared.
        handling: which moments are cleared at a commit and while a mask is held, and whether a commit restarts Adam;
            None: Pomona's default.

    Raises:
        InputError: the granularity needs adapters that the merge keeps apart, and it does not.
    """

    def __init__(
        self,
        attachment: Attachment,
        pruning: Pruning,
        statistics: Statistics,
        optimizer: torch.optim.Optimizer,
        handling: Handling | None = None,
    ) -> None:
        self._handling = handling or Handling()
        self._layers = attachment.layers
        self._pruning = pruning
        self._statistics = statistics
        self._optimizer = optimizer
        kept_apart = all(layer.keeps_apart for layer in self._layers.values())
        if pruning.of_sources and not kept_apart:
            raise InputError(
                "prunes parts of single sources, which this merge does not keep apart",
                field="pruning.granularity",
                value=pruning.granularity,
                fix="Use merge method concat, or granularity rank or module",
            )
        self._by_adapter = pruning.by_adapter(kept_apart=kept_apart)
        self._stacks = [_PrunedStack(stack, *self._factors_of(stack)) for stack in attachment.stacks]
        self._factors = [factor for one in self._stacks for factor in (one.A, one.B)]
        self._kept_scores: dict[str, ModuleScores] = {}
        self.nan: Tensor | None = None
        """On an accelerator: 0, or NaN where a score was NaN; the host does not wait to read it."""

    def _factors_of(self, stack: Stack) -> Iterator[PrunedFactor]:
        """A and B of a stack; masks by adapter always have the zeros that pad an adapter of lower rank."""
        if self._by_adapter:
            A, B = (torch.zeros_like(side, dtype=torch.bool) for side in (stack.A, stack.B))
            for own in stack.parts(A, B).values():
                for side in own:
                    side.fill_(True)
        else:
            pair = stack.effective()
            A, B = (torch.ones_like(side, dtype=torch.bool) for side in (pair.A, pair.B))
        for side, values, prunable in (("A", stack.A, A), ("B", stack.B, B)):
            parameters: dict[str, nn.Parameter] = {f"{path}.{side}": getattr(layer, side) for path, layer in stack.modules.items()}
            yield PrunedFactor(parameters, values, prunable, values.clone() if self._pruning.reset == "initial" else None)

    @property
    def state(self) -> MaskState:
        """The state, by the name of a parameter; it shares memory with the masks."""
        factors = self._factors
        resets = [dict.fromkeys(one.parameters) if one.reset is None else one.named(one.reset) for one in factors]
        return MaskState(
            self._named(one.named(one.mask) for one in factors),
            self._named(one.named(one.stash) for one in factors),
            self._named(resets),
            self._kept_scores,
        )

    @state.setter
    def state(self, state: MaskState) -> None:
        for one in self._factors:
            one.mask, one.stash = one.joined(state.masks), one.joined(state.stash)
            if one.reset is not None:
                one.reset = one.joined({name: value for name, value in state.reset.items() if value is not None})
        self._kept_scores = state.kept_scores

    @torch.no_grad()
    def unpruned(self) -> dict[str, Tensor]:
        """A copy of every parameter, with pruned entries at their stashed values."""
        return self._named(one.named(one.unpruned()) for one in self._factors)

    @torch.no_grad()
    def pruned(self, unpruned: Mapping[str, Tensor], prune_ratio: float | Sequence[float]) -> dict[str, Tensor]:
        """The parameters `unpruned`, of an earlier step, pruned at a ratio (or one for each group) with the current statistics.

        While `keep_scores` is in effect, the kept importance decides.
        """
        values = [(one.A.joined(unpruned), one.B.joined(unpruned)) for one in self._stacks]
        return self._masked(unpruned, self._selected(self._kept_scores or self._scores(values), prune_ratio))

    @torch.no_grad()
    def masked(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of the parameters with pruned entries at their reset values.

        Args:
            values: parameter name -> its values, of all prunable parameters; others are left out of the result.
        """
        return self._masked(values, [one.mask for one in self._factors])

    def _masked(self, values: Mapping[str, Tensor], masks: Sequence[Tensor]) -> dict[str, Tensor]:
        factors = zip(self._factors, masks, strict=True)
        return self._named(one.named(one.masked(one.joined(values), mask)) for one, mask in factors)

    @torch.no_grad()
    def scores(self) -> dict[str, ModuleScores]:
        """Importance of every module's entries, with pruned entries at their stashed values."""
        return self._kept_scores or self._scores([(one.A.unpruned(), one.B.unpruned()) for one in self._stacks])

    def _scores(self, values: Sequence[tuple[Tensor, Tensor]]) -> dict[str, ModuleScores]:
        """Importance of every module's entries with such values of A and B, a pair for each stack."""
        self._statistics.prepare()
        found: dict[str, ModuleScores] = {}
        checked: list[Tensor] = []
        for one, (A, B) in zip(self._stacks, values, strict=True):
            found |= self._scores_of_stack(one.stack, A, B, checked)
        if checked[0].device.type != "cpu":
            self.nan = no_nan(checked)
        return {path: found[path] for path in self._layers}

    def _scores_of_stack(self, stack: Stack, A: Tensor, B: Tensor, checked: list[Tensor]) -> dict[str, ModuleScores]:
        """`_scores` of the modules of a stack, whose tensors are added to `checked`, as few as there are."""
        metric = self._pruning.metric
        if metric.takes_stacks and (stack.keeps_apart or not self._by_adapter):
            sides = metric.scores(stack.merged(A, B), self._statistics.of(stack))
            checked += sides
            pairs = list(zip(*map(torch.unbind, sides), strict=True))
        else:
            pairs = self._scores_one_by_one(stack, A, B)
            checked += [side for pair in pairs for side in pair]
        sizes: Iterable[float | Tensor] = [0.0] * len(pairs)
        if self._pruning.granularity == "module":
            own = zip(stack.merged(A, B).each(), self._statistics.each(stack).values(), strict=True)
            sizes = [mean_update_size(factors, statistics.input_norm_I) for factors, statistics in own]
        return {path: ModuleScores(*pair, size) for path, pair, size in zip(stack.paths, pairs, sizes, strict=True)}

    def _scores_one_by_one(self, stack: Stack, A: Tensor, B: Tensor) -> list[tuple[Tensor, Tensor]]:
        each = self._statistics.each(stack).values()
        if self._by_adapter and not stack.keeps_apart:
            own = zip(stack.modules.values(), A.unbind(), B.unbind(), each, strict=True)
            return [self._own_scores(layer, layer.own_factors(A_k, B_k), statistics) for layer, A_k, B_k, statistics in own]
        merged = zip(stack.merged(A, B).each(), each, strict=True)
        return [self._pruning.metric.scores(factors, statistics) for factors, statistics in merged]

    def _own_scores(self, layer: AdaptedModule, own: Mapping[int, Factors], statistics: ModuleStatistics) -> tuple[Tensor, Tensor]:
        """Scores of each adapter's own factors, with the layout of the parameters; 0 for the padding of a lower rank."""
        found = {
            place: self._pruning.metric.scores(factors, statistics.of_components(factors.rank, place))
            for place, factors in own.items()
        }
        dtype = next(iter(found.values()))[0].dtype
        A, B = (torch.zeros_like(side, dtype=dtype) for side in (layer.A, layer.B))
        for place, (part_A, part_B) in layer.parts(A, B).items():
            part_A.copy_(found[place][0])
            part_B.copy_(found[place][1])
        return A, B

    @torch.no_grad()
    def select(self, scores: Mapping[str, ModuleScores], prune_ratio: float | Sequence[float]) -> Masks:
        """The masks of a prune ratio, or of one ratio for each group of layers, with the settings' granularity and scope."""
        masks = zip(self._factors, self._selected(scores, prune_ratio), strict=True)
        return self._named(one.named(mask) for one, mask in masks)

    def _selected(self, scores: Mapping[str, ModuleScores], prune_ratio: float | Sequence[float]) -> list[Tensor]:
        """`select`, one tensor for each factor of all modules of a stack."""
        pruning, granularity, ties = self._pruning, self._pruning.granularity, self._pruning.prunes_ties
        if self._by_adapter or granularity in ("source_layer", "source_rank"):
            own = {
                path: {place: ModuleScores(A, B, 0.0) for place, (A, B) in layer.parts(scores[path].A, scores[path].B).items()}
                for path, layer in self._layers.items()
            }
            if granularity in ("source_layer", "source_rank"):
                together = pruning.sources_compete
                parts = select_masks_by_source(own, prune_ratio, granularity, pruning.scope, together=together, all_ties=ties)
            else:
                parts = select_masks_by_adapter(own, prune_ratio, pruning.scope, all_ties=ties)
            return [mask for one in self._stacks for mask in one.of_parts(parts)]
        found = select_masks(scores, prune_ratio, granularity, pruning.scope, all_ties=ties)
        sides = (zip(*(found[path] for path in one.stack.paths), strict=True) for one in self._stacks)
        return [torch.stack(masks) for pair in sides for masks in pair]

    def keep_scores(self) -> None:
        """Keep the current importance until `reselect`, as the published code of GRASP does."""
        self._kept_scores = self.scores()

    @torch.no_grad()
    def hold(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> MaskChange:
        """Commit masks: stash newly pruned entries, and revive entries that are no longer pruned."""
        counts: list[Tensor] = []
        for one in self._factors:
            mask = one.joined(masks)
            newly_pruned = mask & ~one.mask
            counts += [((mask ^ one.mask) & one.prunable).sum(), newly_pruned.sum(), one.prunable.sum()]
            one.commit(mask)
            one.clear_moments(self._optimizer, newly_pruned if self._handling.clears_moments_at_commits_only else mask)
            for parameter in one.parameters.values() if self._handling.restarts_adam else ():
                if parameter in self._optimizer.state:
                    self._optimizer.state[parameter]["step"].zero_()
        found = torch.stack(counts).view(-1, 3).sum(dim=0).tolist()  # read together: the host waits once
        changed, newly, entries = found
        return MaskChange(changed / entries, newly / entries)

    @torch.no_grad()
    def feed_back(self, prune_ratio: float | Sequence[float] | None) -> None:
        """Dynamic pruning with feedback: train the stash by the last step, and prune the lowest entries of the dense weights.

        Args:
            prune_ratio: a ratio, or one for each group; None: the mask in force stays.
        """
        self.enforce(feedback=True)
        if prune_ratio is not None:
            self._kept_scores = {}
            for one, mask in zip(self._factors, self._selected(self.scores(), prune_ratio), strict=True):
                one.commit(mask)

    @torch.no_grad()
    def reselect(self, prune_ratio: float | Sequence[float]) -> None:
        """Prune and retrain: reset the entries with the lowest scores; pruned entries compete with their current values.

        The values before the reset are not stashed. The stash holds the reset values, so later `scores` use the reset weights.
        """
        self._kept_scores = {}
        masks = self._selected(self._scores([(one.stack.A, one.stack.B) for one in self._stacks]), prune_ratio)
        for one, mask in zip(self._factors, masks, strict=True):
            one.prune_again(mask, self._optimizer)

    @torch.no_grad()
    def enforce(self, *, feedback: bool = False) -> None:
        """Reset every pruned entry, and clear its moments unless only commits clear them.

        With `feedback`, the moments are kept, and the entry's update is added to its stash.

        Then the gradients of the pruned model train the stash: Dynamic Model Pruning with Feedback (Lin et al., ICLR 2020,
        arXiv 2006.07253). Weight decay acts on the current value of the entry, not on the stash.
        """
        for one in self._factors:
            if feedback:
                one.feed_stash()
            elif not self._handling.clears_moments_at_commits_only:
                one.clear_moments(self._optimizer, one.mask)
            one.put_at_rest()

    @torch.no_grad()
    def importance(self) -> dict[str, float]:
        """Module -> mean score of the kept entries of both factors."""
        scores, masks, found = self.scores(), self.state.masks, {}
        for path, one in scores.items():
            kept = torch.cat([side[~masks[key]] for side, key in zip((one.A, one.B), _keys(path), strict=True)])
            found[path] = float(kept.mean()) if kept.numel() else 0.0
        return found

    @torch.no_grad()
    def values(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> dict[str, Tensor]:
        """Every parameter as if `masks` were committed; None: as it is. Nothing is changed."""
        factors = self._factors
        return self._named(one.named(one.values if masks is None else one.trial(one.joined(masks))) for one in factors)

    @torch.no_grad()
    def first_order(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> float:
        """The change of the training loss that the last step's gradient foretells for `masks`, nats: `sum g (W_trial - W)`.

        Over the entries W of the merged factors. The gradient is that of the last batch, before the step was taken.
        """
        changes: dict[str, Tensor] = {}
        for one in self._stacks:
            gradient = self._statistics.of(one.stack).gradient
            assert gradient is not None, "gradients are observed, and a step was taken"
            now, trial = one.stack.effective(), one.stack.merged(*(side.trial(side.joined(masks)) for side in (one.A, one.B)))
            foretold = ((trial.A - now.A) * gradient.A, (trial.B - now.B) * gradient.B)
            for path, *sides in zip(one.stack.paths, *map(torch.unbind, foretold), strict=True):
                changes[path] = sides[0].sum() + sides[1].sum()
        return sum(torch.stack([changes[path] for path in self._layers]).tolist())

    def _named(self, parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
        """What the mappings of all factors have, in the order of the parameters."""
        found = {name: value for part in parts for name, value in part.items()}
        return {key: found[key] for path in self._layers for key in _keys(path)}

    @contextmanager
    def trial(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> Iterator[None]:
        """Within the block the weights are as if `masks` were committed; leaving puts them back bit for bit."""
        parameters = self._named(one.parameters for one in self._factors)
        kept = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, values in self.values(masks).items():
                parameters[name].data = values
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = kept[name]


class _PrunedStack(NamedTuple):
    """A stack with its two factors."""

    stack: Stack
    A: PrunedFactor
    B: PrunedFactor

    def of_parts(self, parts: Mapping[str, Mapping[int, ModuleMasks]]) -> tuple[Tensor, Tensor]:
        """The masks of both factors, from those of each adapter's own part: module -> adapter -> masks."""
        masks = ~self.A.prunable, ~self.B.prunable
        for place, sides in self.stack.parts(*masks).items():
            for side, own in zip(sides, zip(*(parts[path][place] for path in self.stack.paths), strict=True), strict=True):
                side.copy_(torch.stack(own))
        return masks


def _keys(path: str) -> tuple[str, str]:
    return f"{path}.A", f"{path}.B"
