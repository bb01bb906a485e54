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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool
from pydantic import ConfigDict
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.attach import Attachment
from pomona.backbone.trainable.base import AdaptedModule
from pomona.control import Handling
from pomona.errors import InputError
from pomona.importance import ModuleStatistics, mean_update_size
from pomona.pruning import (
    ModuleScores,
    change_share,
    commit,
    restored,
    select_masks,
    select_masks_by_adapter,
    select_masks_by_source,
    trial_values,
)
from pomona.tuning.settings import Pruning
from pomona.tuning.state import HOLDS_TENSORS
from pomona.tuning.statistics import Statistics

MOMENTS = ("exp_avg", "exp_avg_sq")

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
        self._parameters: dict[str, nn.Parameter] = attachment.parameters()
        initial = pruning.reset == "initial"
        reset = {name: value.detach().clone() if initial else None for name, value in self._parameters.items()}
        kept_apart = all(layer.keeps_apart for layer in self._layers.values())
        if pruning.of_sources and not kept_apart:
            raise InputError(
                "prunes parts of single sources, which this merge does not keep apart",
                field="pruning.granularity",
                value=pruning.granularity,
                fix="Use merge method concat, or granularity rank or module",
            )
        self._by_adapter = pruning.by_adapter(kept_apart=kept_apart)
        self._prunable = {name: ~mask for name, mask in self._padding().items()}
        self.state = MaskState(
            self._no_masks(), {name: torch.zeros_like(value.detach()) for name, value in self._parameters.items()}, reset
        )

    def _no_masks(self) -> Masks:
        """New masks that prune nothing except `_padding`."""
        return {name: ~prunable for name, prunable in self._prunable.items()}

    def _padding(self) -> Masks:
        """Where masks by adapter have the zeros that pad an adapter of lower rank; nowhere for other masks."""
        masks: Masks = {}
        for path, layer in self._layers.items():
            if self._by_adapter:
                A, B = (torch.ones_like(side, dtype=torch.bool) for side in (layer.A, layer.B))
                for own in layer.parts(A, B).values():
                    for side in own:
                        side.fill_(False)
            else:
                pair = layer.effective()
                A, B = (torch.zeros_like(side, dtype=torch.bool) for side in (pair.A, pair.B))
            masks |= zip(_keys(path), (A, B), strict=True)
        return masks

    @torch.no_grad()
    def unpruned(self) -> dict[str, Tensor]:
        """A copy of every parameter, with pruned entries at their stashed values."""
        return {
            name: restored(parameter.detach(), self.state.masks[name], self.state.stash[name])
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def pruned(self, unpruned: Mapping[str, Tensor], prune_ratio: float | Sequence[float]) -> dict[str, Tensor]:
        """The parameters `unpruned`, of an earlier step, pruned at a ratio (or one for each group) with the current statistics."""
        return self.masked(unpruned, self.select(self.scores(unpruned), prune_ratio))

    @torch.no_grad()
    def masked(self, values: Mapping[str, Tensor], masks: Mapping[str, Bool[Tensor, "..."]] | None = None) -> dict[str, Tensor]:
        """Values of the parameters with pruned entries at their reset values.

        Args:
            values: parameter name -> its values, of all prunable parameters; others are left out of the result.
            masks: by default those in force.
        """
        masks, resets = self.state.masks if masks is None else masks, self.state.reset
        return {name: torch.where(masks[name], 0.0 if reset is None else reset, values[name]) for name, reset in resets.items()}

    @torch.no_grad()
    def scores(self, unpruned: Mapping[str, Tensor] | None = None) -> dict[str, ModuleScores]:
        """Importance of every module's entries, with pruned entries at their stashed values, or of the parameters `unpruned`."""
        if self.state.kept_scores:
            return self.state.kept_scores
        self._statistics.prepare()
        unpruned = unpruned or self.unpruned()
        scores = {}
        for path, layer in self._layers.items():
            sides, statistics = [unpruned[key] for key in _keys(path)], self._statistics[path]
            if self._by_adapter and not layer.keeps_apart:
                scores[path] = self._own_scores(layer, layer.own_factors(*sides), statistics)
                continue
            factors = layer.merged(*sides)
            whole = self._pruning.granularity == "module"
            size = mean_update_size(factors, statistics.input_norm_I) if whole else 0.0
            scores[path] = ModuleScores(*self._pruning.metric.scores(factors, statistics), size)
        return scores

    def _own_scores(self, layer: AdaptedModule, own: Mapping[int, Factors], statistics: ModuleStatistics) -> ModuleScores:
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
        return ModuleScores(A, B, 0.0)

    def select(self, scores: Mapping[str, ModuleScores], prune_ratio: float | Sequence[float]) -> Masks:
        """The masks of a prune ratio, or of one ratio for each group of layers, with the settings' granularity and scope."""
        pruning, granularity = self._pruning, self._pruning.granularity
        if self._by_adapter or granularity in ("source_layer", "source_rank"):
            return self._select_by_adapter(scores, prune_ratio)
        found = select_masks(scores, prune_ratio, granularity, pruning.scope, all_ties=pruning.prunes_ties)
        return {key: mask for path, masks in found.items() for key, mask in zip(_keys(path), masks, strict=True)}

    def _select_by_adapter(self, scores: Mapping[str, ModuleScores], prune_ratio: float | Sequence[float]) -> Masks:
        own = {
            path: {place: ModuleScores(A, B, 0.0) for place, (A, B) in layer.parts(scores[path].A, scores[path].B).items()}
            for path, layer in self._layers.items()
        }
        pruning, granularity, ties = self._pruning, self._pruning.granularity, self._pruning.prunes_ties
        if granularity in ("source_layer", "source_rank"):
            together = pruning.sources_compete
            found = select_masks_by_source(own, prune_ratio, granularity, pruning.scope, together=together, all_ties=ties)
        else:
            found = select_masks_by_adapter(own, prune_ratio, pruning.scope, all_ties=ties)
        masks = self._no_masks()
        for path, layer in self._layers.items():
            for place, (A, B) in layer.parts(*(masks[key] for key in _keys(path))).items():
                A.copy_(found[path][place].A)
                B.copy_(found[path][place].B)
        return masks

    def keep_scores(self) -> None:
        """Keep the current importance until `reselect`, as the published code of GRASP does."""
        self.state.kept_scores = self.scores()

    @torch.no_grad()
    def hold(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> MaskChange:
        """Commit masks: stash newly pruned entries, and revive entries that are no longer pruned."""
        changed = change_share(*([one[name][own] for name, own in self._prunable.items()] for one in (self.state.masks, masks)))
        newly_pruned = {name: masks[name] & ~mask for name, mask in self.state.masks.items()}
        self._commit(masks)
        for name, parameter in self._parameters.items():
            self._clear_moments(parameter, newly_pruned[name] if self._handling.clears_moments_at_commits_only else masks[name])
            if self._handling.restarts_adam and parameter in self._optimizer.state:
                self._optimizer.state[parameter]["step"].zero_()
        entries = sum(int(own.sum()) for own in self._prunable.values())
        return MaskChange(changed, sum(int(mask.sum()) for mask in newly_pruned.values()) / entries)

    def _commit(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> None:
        """Put masks in force: stash newly pruned entries, and revive entries that are no longer pruned."""
        for name, parameter in self._parameters.items():
            reset = self.state.reset[name]
            outcome = commit(parameter.detach(), self.state.masks[name], self.state.stash[name], masks[name], reset)
            parameter.copy_(outcome.W)
            self.state.stash[name] = outcome.stash
            self.state.masks[name] = masks[name]

    @torch.no_grad()
    def feed_back(self, prune_ratio: float | Sequence[float] | None) -> None:
        """Dynamic pruning with feedback: train the stash by the last step, and prune the lowest entries of the dense weights.

        Args:
            prune_ratio: a ratio, or one for each group; None: the mask in force stays.
        """
        self.enforce(feedback=True)
        if prune_ratio is not None:
            self.state.kept_scores = {}
            self._commit(self.select(self.scores(), prune_ratio))

    @torch.no_grad()
    def reselect(self, prune_ratio: float | Sequence[float]) -> None:
        """Prune and retrain: reset the entries with the lowest scores; pruned entries compete with their current values.

        The values before the reset are not stashed. The stash holds the reset values, so later `scores` use the reset weights.
        """
        self.state.masks = self._no_masks()
        self.state.kept_scores = {}
        self.state.masks = self.select(self.scores(), prune_ratio)
        for name, parameter in self._parameters.items():
            self._clear_moments(parameter, self.state.masks[name])
        self._put_at_rest()
        for name, reset in self.state.reset.items():
            if reset is None:
                self.state.stash[name].zero_()
            else:
                self.state.stash[name] = torch.where(self.state.masks[name], reset, 0.0)

    @torch.no_grad()
    def enforce(self, *, feedback: bool = False) -> None:
        """Reset every pruned entry, and clear its moments unless only commits clear them.

        With `feedback`, the moments are kept, and the entry's update is added to its stash.

        Then the gradients of the pruned model train the stash: Dynamic Model Pruning with Feedback (Lin et al., ICLR 2020,
        arXiv 2006.07253). Weight decay acts on the current value of the entry, not on the stash.
        """
        for name, parameter in self._parameters.items():
            mask, reset = self.state.masks[name], self.state.reset[name]
            if feedback:
                self.state.stash[name] += torch.where(mask, parameter if reset is None else parameter - reset, 0.0)
            elif not self._handling.clears_moments_at_commits_only:
                self._clear_moments(parameter, mask)
        self._put_at_rest()

    def _put_at_rest(self) -> None:
        """Set every pruned entry to its reset value."""
        for name, parameter in self._parameters.items():
            mask, reset = self.state.masks[name], self.state.reset[name]
            if reset is None:
                parameter.masked_fill_(mask, 0.0)
            else:
                parameter.copy_(torch.where(mask, reset, parameter))

    def _clear_moments(self, parameter: nn.Parameter, mask: Bool[Tensor, "..."]) -> None:
        state = self._optimizer.state.get(parameter, {})
        for moment in MOMENTS:
            if moment in state:
                state[moment].masked_fill_(mask, 0.0)

    def kept(self, path: str) -> tuple[Bool[Tensor, "R I"], Bool[Tensor, "O R"]]:
        """Which entries of a module's merged factors are not pruned."""
        A, B = (~self.state.masks[key] for key in _keys(path))
        return A, B

    @torch.no_grad()
    def values(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> dict[str, Tensor]:
        """Every parameter as if `masks` were committed; None: as it is. Nothing is changed."""
        if masks is None:
            return {name: parameter.detach() for name, parameter in self._parameters.items()}
        return {
            name: trial_values(
                parameter.detach(), self.state.masks[name], self.state.stash[name], masks[name], self.state.reset[name]
            )
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def first_order(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> float:
        """The change of the training loss that the last step's gradient foretells for `masks`, nats: `sum g (W_trial - W)`.

        Over the entries W of the merged factors. The gradient is that of the last batch, before the step was taken.
        """
        values, total = self.values(masks), 0.0
        for path, layer in self._layers.items():
            gradient = self._statistics[path].gradient
            assert gradient is not None, "gradients are observed, and a step was taken"
            now, trial = layer.effective(), layer.merged(*(values[key] for key in _keys(path)))
            total += float(((trial.A - now.A) * gradient.A).sum() + ((trial.B - now.B) * gradient.B).sum())
        return total

    @contextmanager
    def trial(self, masks: Mapping[str, Bool[Tensor, "..."]] | None) -> Iterator[None]:
        """Within the block the weights are as if `masks` were committed; leaving puts them back bit for bit."""
        kept = {name: parameter.data for name, parameter in self._parameters.items()}
        try:
            for name, values in self.values(masks).items():
                self._parameters[name].data = values
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = kept[name]


def _keys(path: str) -> tuple[str, str]:
    return f"{path}.A", f"{path}.B"
