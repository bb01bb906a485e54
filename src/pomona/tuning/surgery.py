"""Pruning at work on a model in training: importance of live factors, masks over them, their optimizer moments.

Two regimes, one after the other in a run that learns its ratio:
    held       a committed mask stays in force; pruned values wait in a stash and can be revived by the next commit (GRASP)
    reselected after each step the lowest entries are reset to zero and may grow again from there (ALM)
In both, exactly `pruned_count(prune_ratio, n)` entries of every factor are zero after each step, and their optimizer
moments are cleared: momentum would otherwise revive them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.attach import Attachment
from pomona.backbone.statistics import StreamedNorms
from pomona.importance import ImportanceMetric
from pomona.pruning import change_share, commit, restored, select_lowest, trial_values

MOMENTS = ("exp_avg", "exp_avg_sq")


class Surgeon:
    """Keeps the masks, stashes and moments of every factor of an attachment.

    Args:
        attachment: whose factors are pruned.
        metric: how important each entry is.
        norms: streamed statistics, read when importance is computed.
        optimizer: whose moments are cleared.
    """

    def __init__(self, attachment: Attachment, metric: ImportanceMetric, norms: StreamedNorms, optimizer: torch.optim.Optimizer):
        self._layers = attachment.layers
        self._metric = metric
        self._norms = norms
        self._optimizer = optimizer
        self._parameters: dict[str, nn.Parameter] = attachment.parameters()
        self._masks = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in self._parameters.items()}
        self._stash = {name: torch.zeros_like(value.detach()) for name, value in self._parameters.items()}
        self._kept_scores: dict[str, Tensor] = {}

    def scores(self) -> dict[str, Tensor]:
        """Importance of every entry, pruned ones at their stashed value: `path.A` and `path.B` -> scores >= 0."""
        if self._kept_scores:
            return self._kept_scores
        scores = {}
        for path, layer in self._layers.items():
            A, B = (restored(self._parameters[key].detach(), self._masks[key], self._stash[key]) for key in _keys(path))
            pair = Factors(A * layer.scale_R[:, None], B)
            scores.update(zip(_keys(path), self._metric.scores(pair, self._norms[path]), strict=True))
        return scores

    def keep_scores(self) -> None:
        """Let importance stay as it is now, as the published code of GRASP does; `reselect` ends that."""
        self._kept_scores = self.scores()

    @torch.no_grad()
    def hold(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> float:
        """Commit masks: stash what they newly prune, revive what they free. Returns the share of entries that changed sides."""
        changed = change_share(list(self._masks.values()), list(masks.values()))
        for name, parameter in self._parameters.items():
            outcome = commit(parameter.detach(), self._masks[name], self._stash[name], masks[name])
            parameter.copy_(outcome.W)
            self._stash[name] = outcome.stash
            self._masks[name] = masks[name]
        self.enforce()
        return changed

    @torch.no_grad()
    def reselect(self, prune_ratio: float) -> None:
        """Prune and retrain: reset the lowest entries as they are now, pruned ones competing with what they have grown to."""
        for stash in self._stash.values():
            stash.zero_()
        self._masks = {name: torch.zeros_like(mask) for name, mask in self._masks.items()}
        self._kept_scores = {}
        self._masks = select_masks(self.scores(), prune_ratio)
        self.enforce()

    @torch.no_grad()
    def enforce(self) -> None:
        """Zero every pruned entry and its moments."""
        for name, parameter in self._parameters.items():
            mask = self._masks[name]
            parameter.masked_fill_(mask, 0.0)
            state = self._optimizer.state.get(parameter, {})
            for moment in MOMENTS:
                if moment in state:
                    state[moment].masked_fill_(mask, 0.0)

    @contextmanager
    def trial(self, masks: Mapping[str, Bool[Tensor, "..."]]) -> Iterator[None]:
        """Within the block the weights are as if `masks` were committed; leaving puts them back bit for bit."""
        kept = {name: parameter.data for name, parameter in self._parameters.items()}
        try:
            for name, parameter in self._parameters.items():
                parameter.data = trial_values(parameter.data, self._masks[name], self._stash[name], masks[name])
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = kept[name]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold; `load_state` takes it back."""
        masks = {f"mask.{name}": mask for name, mask in self._masks.items()}
        stashes = {f"stash.{name}": stash for name, stash in self._stash.items()}
        return masks | stashes | {f"scores.{name}": scores for name, scores in self._kept_scores.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name in self._parameters:
            self._masks[name].copy_(state[f"mask.{name}"])
            self._stash[name].copy_(state[f"stash.{name}"])
        self._kept_scores = {name: state[f"scores.{name}"] for name in self._parameters if f"scores.{name}" in state}


def select_masks(scores: Mapping[str, Tensor], prune_ratio: float) -> dict[str, Bool[Tensor, "..."]]:
    """A mask for every factor: True = pruned, exactly `pruned_count(prune_ratio, n)` of each."""
    return {name: select_lowest(one, prune_ratio) for name, one in scores.items()}


def _keys(path: str) -> tuple[str, str]:
    return f"{path}.A", f"{path}.B"
