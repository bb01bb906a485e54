"""One factor, A or B, of the modules of a stack: its values, and the masks, stash, reset values and moments that belong to them.

Every tensor has the modules on its first axis, so that an operation here is one operation, however many modules there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from pomona.pruning import commit, restored, trial_values

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(eq=False)
class PrunedFactor:
    """One factor of M modules of one shape.

    Args:
        parameters: name -> parameter; its entries are those of `values`.
        values: of all parameters, in one tensor.
        prunable: entries of the masks that may be pruned at all; others, which pad an adapter of lower rank, always are.
        reset: the values of pruned entries; None: 0.
    """

    parameters: Mapping[str, nn.Parameter]
    values: Tensor
    prunable: Bool[Tensor, "M ..."]
    reset: Tensor | None
    mask: Bool[Tensor, "M ..."] = field(init=False)
    """In force; True = pruned. Of the values' shape, or without the axis of the adapters: then it is in force for each of them."""
    stash: Tensor = field(init=False)
    """The value of a pruned entry if it is revived; 0 elsewhere."""
    _moments: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.mask = ~self.prunable
        self.stash = torch.zeros_like(self.values)

    def over(self, mask: Bool[Tensor, "M ..."]) -> Bool[Tensor, "M ..."]:
        """A mask with an axis for the adapters, where the values have it and the mask does not."""
        return mask if mask.ndim == self.values.ndim else mask.unsqueeze(1)

    def named(self, stacked: Tensor) -> dict[str, Tensor]:
        """Name of a parameter -> its part of a tensor of all modules, a view."""
        return dict(zip(self.parameters, stacked.unbind(), strict=True))

    def joined(self, named: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `named`: a new tensor."""
        return torch.stack([named[name] for name in self.parameters])

    def unpruned(self) -> Tensor:
        """The values with pruned entries at their stashed values; a new tensor."""
        return restored(self.values, self.over(self.mask), self.stash)

    def masked(self, values: Tensor, mask: Bool[Tensor, "M ..."]) -> Tensor:
        """Such values with pruned entries at their reset values; a new tensor."""
        return torch.where(self.over(mask), 0.0 if self.reset is None else self.reset, values)

    def trial(self, mask: Bool[Tensor, "M ..."]) -> Tensor:
        """The values as if a mask were committed; a new tensor."""
        return trial_values(self.values, self.over(self.mask), self.stash, self.over(mask), self.reset)

    def commit(self, mask: Bool[Tensor, "M ..."]) -> None:
        """Put a mask in force: stash newly pruned entries, and revive entries that are no longer pruned."""
        outcome = commit(self.values, self.over(self.mask), self.stash, self.over(mask), self.reset)
        self.values.copy_(outcome.W)
        self.stash, self.mask = outcome.stash, mask

    def put_at_rest(self) -> None:
        """Set every pruned entry to its reset value."""
        mask = self.over(self.mask)
        if self.reset is None:
            self.values.masked_fill_(mask, 0.0)
        else:
            self.values.copy_(torch.where(mask, self.reset, self.values))

    def feed_stash(self) -> None:
        """Add what the pruned entries have moved from their reset values to the stash."""
        moved = self.values if self.reset is None else self.values - self.reset
        self.stash += torch.where(self.over(self.mask), moved, 0.0)

    def prune_again(self, mask: Bool[Tensor, "M ..."], optimizer: torch.optim.Optimizer) -> None:
        """Put a mask in force and clear its moments; nothing is stashed: the stash then holds the reset values."""
        self.mask = mask
        self.clear_moments(optimizer, mask)
        self.put_at_rest()
        if self.reset is None:
            self.stash.zero_()
        else:
            self.stash = torch.where(self.over(self.mask), self.reset, 0.0)

    def clear_moments(self, optimizer: torch.optim.Optimizer, mask: Bool[Tensor, "M ..."]) -> None:
        """Clear the optimizer's moments of the entries of a mask."""
        for moment in self._moments_in(optimizer):
            moment.masked_fill_(self.over(mask), 0.0)

    def _moments_in(self, optimizer: torch.optim.Optimizer) -> Sequence[Tensor]:
        """The moments of all parameters, one tensor a moment; none before the optimizer's first step.

        The optimizer makes a tensor for each parameter at its first step, and a checkpoint brings others: they move in here.
        """
        states = [optimizer.state.get(parameter, {}) for parameter in self.parameters.values()]
        kinds = [kind for kind in MOMENTS if all(kind in state for state in states)]
        for kind in kinds:
            if kind not in self._moments:
                self._moments[kind] = torch.zeros_like(self.values)
            own = self._moments[kind]
            for state, part in zip(states, own.unbind(), strict=True):
                if state[kind].data_ptr() != part.data_ptr():
                    part.copy_(state[kind])
                    state[kind] = part
        return [self._moments[kind] for kind in kinds]
