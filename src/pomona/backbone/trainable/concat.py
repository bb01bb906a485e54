"""Adapters side by side on a frozen module: the exact sum of their updates.

Axes: K trained adapters, R the sum of their ranks, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.linear_modules import linear_shape, weight_of
from pomona.backbone.trainable.base import AdaptedModule, Part, TrainableMerge, quotient, trainable_merges
from pomona.importance import FactorPair


class ConcatModule(AdaptedModule):
    """Adapters side by side: A = [A_1; ...; A_K] [R, I], B = [B_1 ... B_K] [O, R], R the sum of their ranks.

    `y = base(x) + B (scale * (A x))`, where row r of adapter k has `scale_r = w_k s_k`. This is the exact sum of the updates
    without cross terms, in two products instead of 2 K, and its gradients are those of the adapters trained apart. `weights` is
    w, [K]. Frozen adapters are a second pair with their shares in it.
    """

    keeps_apart = True

    _constant_R: Tensor
    _owner_R: Tensor

    def lay_out(self, trained: Sequence[Part], frozen: Sequence[Part], train_weights: bool) -> None:
        """See `AdaptedModule.lay_out`."""
        self.A, self.B = (nn.Parameter(side, requires_grad=bool(trained)) for side in self._beside(trained))
        fixed_A, fixed_B = self._beside(frozen)
        self.constant("fixed_A", fixed_A)
        self.constant("fixed_B", fixed_B * _per_rank([part.share for part in frozen], frozen, fixed_B.device))
        shares = [part.scaling if train_weights else part.share for part in trained]
        self.constant("_constant_R", _per_rank(shares, trained, self.A.device))
        self.constant("_owner_R", _per_rank(range(len(trained)), trained, self.A.device).long())
        start = torch.tensor([part.weight for part in trained], device=self.A.device)
        self.weights = nn.Parameter(start) if train_weights else None

    def _beside(self, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """Copies of the parts' factors side by side; of rank 0 where there are none."""
        out_features, in_features = linear_shape(self.base)
        device = weight_of(self.base).device
        A = torch.cat([torch.empty(0, in_features, device=device), *(part.A for part in parts)])
        return A, torch.cat([torch.empty(out_features, 0, device=device), *(part.B for part in parts)], dim=1)

    @property
    def scale_R(self) -> Tensor:  # noqa: N802 - the axis
        """w_k s_k of the adapter of each row of A."""
        return self._constant_R if self.weights is None else self.weights[self._owner_R] * self._constant_R

    def merge(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """See `AdaptedModule.merge`: `(scale * A, B)`."""
        return A * self.scale_R[:, None], B

    def with_frozen(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """See `AdaptedModule.with_frozen`: the frozen adapters last."""
        if not len(self.fixed_A):
            return A, B
        return torch.cat([A, self.fixed_A]), torch.cat([B, self.fixed_B], dim=1)

    def parts(self, A: Tensor, B: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """See `AdaptedModule.parts`: rows of A, columns of B."""
        sides = zip(A.split(self._trained_ranks), B.split(self._trained_ranks, dim=1), strict=True)
        return dict(zip(self._trained_places, sides, strict=True))

    def own_factors(self, A: Tensor, B: Tensor) -> dict[int, Factors]:
        """See `AdaptedModule.own_factors`."""
        pair = self.merged(A, B)
        return {place: Factors(*sides) for place, sides in self.parts(pair.A, pair.B).items()}

    @torch.no_grad()
    def merged_gradient(self) -> FactorPair | None:
        """See `AdaptedModule.merged_gradient`; shares the gradient by B."""
        if self.A.grad is None or self.B.grad is None:
            return None
        return FactorPair(quotient(self.A.grad, self.scale_R[:, None]), self.B.grad)

    @torch.no_grad()
    def export(self) -> Factors:
        """See `AdaptedModule.export`: the scaling folded into B, frozen adapters last."""
        return Factors(torch.cat([self.A, self.fixed_A]), torch.cat([self.B * self.scale_R, self.fixed_B], dim=1))


@trainable_merges.register("concat")
@dataclass(frozen=True)
class Concat(TrainableMerge):
    """Every adapter's own columns are trained: the exact sum of the adapters' updates."""

    module = ConcatModule
    title = "the adapters side by side"

    def rank(self, ranks: Sequence[int]) -> int:
        """See `TrainableMerge.rank`: the ranks add up."""
        return sum(ranks)


def _per_rank(values: Sequence[float], parts: Sequence[Part], device: torch.device) -> Tensor:
    """Each part's value once for each of its rows of A."""
    return torch.tensor([value for value, part in zip(values, parts, strict=True) for _ in range(len(part.A))], device=device)
