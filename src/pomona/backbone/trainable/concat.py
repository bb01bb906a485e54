"""Adapters side by side on a frozen module: the exact sum of their updates.

Axes: K trained adapters, R the sum of their ranks, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.linear_modules import linear_shape, weight_of
from pomona.backbone.trainable.base import AdaptedModule, Part, TrainableMerge, gradients_of, quotient, trainable_merges
from pomona.importance import FactorPair


class ConcatModule(AdaptedModule):
    """Adapters side by side: A = [A_1; ...; A_K] [R, I], B = [B_1 ... B_K] [O, R], R the sum of their ranks.

    `y = base(x) + B (scale * (A x))`, where row r of adapter k has `scale_r = w_k s_k`. This is the exact sum of the updates
    without cross terms, in two products instead of 2 K, and its gradients are those of the adapters trained apart. `weights` is
    w, [K]; or the coefficients c of all adapters, those of frozen ones last, with `w = f(c)`. Frozen adapters are a second pair,
    with their shares in it unless they have coefficients.
    """

    keeps_apart = True

    _constant_R: Tensor
    _owner_R: Tensor

    def lay_out(self, trained: Sequence[Part], frozen: Sequence[Part], train_weights: bool) -> None:
        """See `AdaptedModule.lay_out`."""
        self.A, self.B = (nn.Parameter(side, requires_grad=bool(trained)) for side in self._beside(trained))
        fixed_A, fixed_B = self._beside(frozen)
        weighted = [*trained, *frozen] if self.coefficients else trained
        if self.coefficients is None:
            fixed_B = fixed_B * _per_rank([part.share for part in frozen], frozen, fixed_B.device)
        self.constant("fixed_A", fixed_A)
        self.constant("fixed_B", fixed_B)
        learned = train_weights or self.coefficients is not None
        shares = [part.scaling if learned else part.share for part in weighted]
        self.constant("_constant_R", _per_rank(shares, weighted, self.A.device))
        self.constant("_owner_R", _per_rank(range(len(weighted)), weighted, self.A.device).long())
        starts = [part.weight if self.coefficients is None else self.coefficients.inverse(part.weight) for part in weighted]
        start = torch.tensor(starts, device=self.A.device)
        self._weighted_ranks = [len(part.A) for part in weighted]
        if self.coefficients and self.coefficients.unit == "component":
            start = start[self._owner_R]
            self._owner_R = torch.arange(len(start), device=self.A.device)
        self.weights = nn.Parameter(start) if learned else None

    def _beside(self, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """Copies of the parts' factors side by side; of rank 0 where there are none."""
        out_features, in_features = linear_shape(self.base)
        device = weight_of(self.base).device
        A = torch.cat([torch.empty(0, in_features, device=device), *(part.A for part in parts)])
        return A, torch.cat([torch.empty(out_features, 0, device=device), *(part.B for part in parts)], dim=1)

    @property
    def weight_R(self) -> Tensor:  # noqa: N802 - the axis
        """The present merge weight of each row of A, without its multiplier."""
        assert self.weights is not None
        return (self.weights if self.coefficients is None else self.coefficients.f(self.weights))[self._owner_R]

    @property
    def _every_scale_R(self) -> Tensor:  # noqa: N802 - the axis
        """w_k s_k of the adapter of each row; with coefficients the rows of frozen adapters come last."""
        return self._constant_R if self.weights is None else self.weight_R * self._constant_R

    @property
    def scale_R(self) -> Tensor:  # noqa: N802 - the axis
        """w_k s_k of the adapter of each row of A."""
        return self._every_scale_R[: len(self.A)]

    @property
    def _fixed_B(self) -> Tensor:  # noqa: N802 - the factor
        """The columns of the frozen adapters with their shares in them."""
        return self.fixed_B if self.coefficients is None else self.fixed_B * self._every_scale_R[len(self.A) :]

    def merge(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """See `AdaptedModule.merge`: `(scale * A, B)`."""
        return A * self.scale_R[:, None], B

    def with_frozen(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """See `AdaptedModule.with_frozen`: the frozen adapters last."""
        if not len(self.fixed_A):
            return A, B
        return torch.cat([A, self.fixed_A]), torch.cat([B, self._fixed_B], dim=1)

    def operands(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `AdaptedModule.operands`: coefficients of frozen factors scale what B reads, and the factors are read as they are."""
        if self.coefficients is None or self.A.requires_grad:
            return super().operands()
        if not len(self.A) or not len(self.fixed_A):
            A, B = (self.A, self.B) if len(self.A) else (self.fixed_A, self.fixed_B)
            return A, B, self._every_scale_R
        return torch.cat([self.A, self.fixed_A]), torch.cat([self.B, self.fixed_B], dim=1), self._every_scale_R

    def parts(self, A: Tensor, B: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """See `AdaptedModule.parts`: rows of A, columns of B."""
        sides = zip(A.split(self._trained_ranks, dim=-2), B.split(self._trained_ranks, dim=-1), strict=True)
        return dict(zip(self._trained_places, sides, strict=True))

    def own_factors(self, A: Tensor, B: Tensor) -> dict[int, Factors]:
        """See `AdaptedModule.own_factors`."""
        pair = self.merged(A, B)
        return {place: Factors(*sides) for place, sides in self.parts(pair.A, pair.B).items()}

    @classmethod
    def merge_stack(cls, modules: Sequence[ConcatModule], A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `AdaptedModule.merge_stack`."""
        return A * torch.stack([module.scale_R for module in modules])[..., None], B

    @classmethod
    def merged_gradient_stack(cls, modules: Sequence[ConcatModule]) -> FactorPair:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `AdaptedModule.merged_gradient_stack`."""
        found = gradients_of(modules)
        if found is None:
            return super().merged_gradient_stack(modules)
        A, B = found
        return FactorPair(quotient(A, torch.stack([module.scale_R for module in modules])[..., None]), B)

    @torch.no_grad()
    def merged_gradient(self) -> FactorPair | None:
        """See `AdaptedModule.merged_gradient`; shares the gradient by B."""
        if self.A.grad is None or self.B.grad is None:
            return None
        return FactorPair(quotient(self.A.grad, self.scale_R[:, None]), self.B.grad)

    @torch.no_grad()
    def export(self) -> Factors:
        """See `AdaptedModule.export`: the scaling folded into B, frozen adapters last."""
        return Factors(torch.cat([self.A, self.fixed_A]), torch.cat([self.B * self.scale_R, self._fixed_B], dim=1))

    @torch.no_grad()
    def trained_weights(self) -> Tensor:
        """See `AdaptedModule.trained_weights`: of components their mean."""
        if self.coefficients is None:
            return super().trained_weights()
        each = [part.mean() if self.coefficients.unit == "component" else part[0] for part in self._weights_by_adapter()]
        return torch.stack(each)

    @torch.no_grad()
    def component_weights(self) -> list[list[float]] | None:
        """See `AdaptedModule.component_weights`."""
        if self.coefficients is None or self.coefficients.unit != "component":
            return None
        found: list[list[float]] = [[] for _ in self._start_weights]
        for place, part in zip(self._weighted_places, self._weights_by_adapter(), strict=True):
            found[place] = part.tolist()
        return found

    def _weights_by_adapter(self) -> list[Tensor]:
        """The merge weight of each component, by adapter that has coefficients."""
        parts = zip(self._weighted_places, self.weight_R.split(self._weighted_ranks), strict=True)
        return [self._multipliers[place] * part for place, part in parts]

    def tie(self, parameter: nn.Parameter, places: Sequence[int], multiplied: Collection[int]) -> None:
        """See `AdaptedModule.tie`."""
        self.weights = parameter
        index = torch.tensor([places.index(place) for place in self._weighted_places], device=self._owner_R.device)
        more = [self._start_weights[place] if place in multiplied else 1.0 for place in self._weighted_places]
        self._constant_R = self._constant_R * torch.tensor(more, device=self._owner_R.device)[self._owner_R]
        self._owner_R = index[self._owner_R]
        for place, one in zip(self._weighted_places, more, strict=True):
            self._multipliers[place] *= one


@trainable_merges.register("concat")
@dataclass(frozen=True)
class Concat(TrainableMerge):
    """Every adapter's own columns are trained: the exact sum of the adapters' updates."""

    module = ConcatModule
    title = "the adapters side by side"
    has_coefficients = True

    def rank(self, ranks: Sequence[int]) -> int:
        """See `TrainableMerge.rank`: the ranks add up."""
        return sum(ranks)


def _per_rank(values: Sequence[float], parts: Sequence[Part], device: torch.device) -> Tensor:
    """Each part's value once for each of its rows of A."""
    return torch.tensor([value for value, part in zip(values, parts, strict=True) for _ in range(len(part.A))], device=device)
