"""Sums of adapters' factors on a frozen module: the merge that ALM trains.

Axes: K trained adapters, R the largest of their ranks, I input features, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.linear_modules import linear_shape, weight_of
from pomona.backbone.trainable.base import AdaptedModule, Part, TrainableMerge, gradients_of, quotient, trainable_merges
from pomona.importance import FactorPair


class LinearModule(AdaptedModule):
    """Sums of factors: every adapter's own factors are parameters, A [K, R, I] and B [K, O, R], R the largest of their ranks.

    `y = base(x) + (sum_k b_k B_k) (sum_k a_k A_k) x` with `b_k = sqrt|w_k s_k|` and `a_k = sign(w_k s_k) b_k`: the merge method
    `linear`, with its cross terms, as a start that is trained; with unit shares what ALM trains (arXiv 2505.24174).
    Coefficients are kept by row, [K, R]: an adapter of lower rank is padded with zeros whose coefficient is 0, so that they stay
    zero. `weights` holds the roots c_k = sqrt|w_k|, [K], because the gradient by w_k itself is not finite at 0; the sign of a
    weight stays, and a root below 0 turns the sign of its cross terms. Frozen adapters are a constant that is added to each sum,
    of a rank that may be higher; what the observer sees is what B reads, so their part is in it.
    """

    keeps_apart = False

    _constant_KR: Tensor
    _sign_K: Tensor

    def lay_out(self, trained: Sequence[Part], frozen: Sequence[Part], train_weights: bool) -> None:
        """See `AdaptedModule.lay_out`."""
        out_features, in_features = linear_shape(self.base)
        device = weight_of(self.base).device
        rank = max((len(part.A) for part in trained), default=0)
        fixed_rank = max(rank, *(len(part.A) for part in frozen)) if frozen else 0
        A = torch.zeros(len(trained), rank, in_features, device=device)
        B = torch.zeros(len(trained), out_features, rank, device=device)
        constant_KR = torch.zeros(len(trained), rank, device=device)
        for place, part in enumerate(trained):
            own = len(part.A)
            A[place, :own], B[place, :, :own] = part.A, part.B
            constant_KR[place, :own] = math.sqrt(abs(part.scaling if train_weights else part.share))
        self.A, self.B = (nn.Parameter(side, requires_grad=bool(trained)) for side in (A, B))
        self.constant("_constant_KR", constant_KR)
        self.constant("_sign_K", torch.tensor([math.copysign(1.0, part.share) for part in trained], device=device))
        fixed_A, fixed_B = torch.zeros(fixed_rank, in_features, device=device), torch.zeros(out_features, fixed_rank, device=device)
        for part in frozen:
            root = math.sqrt(abs(part.share))
            fixed_A[: len(part.A)] += math.copysign(root, part.share) * part.A
            fixed_B[:, : len(part.A)] += root * part.B
        self.constant("fixed_A", fixed_A)
        self.constant("fixed_B", fixed_B)
        roots = torch.tensor([math.sqrt(abs(part.weight)) for part in trained], device=device)
        self.weights = nn.Parameter(roots) if train_weights else None

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        """`a` and `b` by adapter and row, [K, R]."""
        b_KR = self._constant_KR if self.weights is None else self.weights[:, None] * self._constant_KR
        return self._sign_K[:, None] * b_KR, b_KR

    def merge(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """See `AdaptedModule.merge`: `(sum_k a_k A_k, sum_k b_k B_k)`."""
        a_KR, b_KR = self._coefficients()
        return (a_KR[:, :, None] * A).sum(dim=0), (b_KR[:, None, :] * B).sum(dim=0)

    def with_frozen(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """See `AdaptedModule.with_frozen`: the frozen adapters' sums are added, which may have a higher rank."""
        if not len(self.fixed_A):
            return A, B
        more = len(self.fixed_A) - len(A)
        return F.pad(A, (0, 0, 0, more)) + self.fixed_A, F.pad(B, (0, more)) + self.fixed_B

    def parts(self, A: Tensor, B: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """See `AdaptedModule.parts`: without the zeros that pad an adapter of lower rank."""
        own = zip(A.unbind(-3), B.unbind(-3), self._trained_ranks, strict=True)
        sides = ((A_k[..., :rank, :], B_k[..., :rank]) for A_k, B_k, rank in own)
        return dict(zip(self._trained_places, sides, strict=True))

    @torch.no_grad()
    def own_factors(self, A: Tensor, B: Tensor) -> dict[int, Factors]:
        """See `AdaptedModule.own_factors`: `(a_k A_k, b_k B_k)`."""
        a_KR, b_KR = self._coefficients()
        scaled = self.parts(a_KR[:, :, None] * A.detach(), b_KR[:, None, :] * B.detach())
        return {place: Factors(*sides) for place, sides in scaled.items()}

    @classmethod
    def merge_stack(cls, modules: Sequence[LinearModule], A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `AdaptedModule.merge_stack`."""
        a_MKR, b_MKR = (torch.stack(one) for one in zip(*(module._coefficients() for module in modules), strict=True))
        return (a_MKR[..., None] * A).sum(dim=1), (b_MKR[:, :, None, :] * B).sum(dim=1)

    @classmethod
    def merged_gradient_stack(cls, modules: Sequence[LinearModule]) -> FactorPair:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `AdaptedModule.merged_gradient_stack`."""
        found = gradients_of(modules)
        if found is None:
            return super().merged_gradient_stack(modules)
        squares_MR = torch.stack([module._coefficients()[1] for module in modules]).square().sum(dim=1)
        A, B = cls.merge_stack(modules, *found)
        return FactorPair(quotient(A, squares_MR[..., None]), quotient(B, squares_MR[:, None]))

    @torch.no_grad()
    def merged_gradient(self) -> FactorPair | None:
        """See `AdaptedModule.merged_gradient`.

        The gradient by A_k is `a_k G`, with one G [R, I] for all adapters: `G = sum_k a_k grad_k / sum_k a_k^2`.
        """
        if self.A.grad is None or self.B.grad is None:
            return None
        squares_R = self._coefficients()[1].square().sum(dim=0)  # a and b differ in sign alone
        A, B = self.merge(self.A.grad, self.B.grad)
        return FactorPair(quotient(A, squares_R[:, None]), quotient(B, squares_R))

    def trained_weights(self) -> Tensor:
        """See `AdaptedModule.trained_weights`: the squares of the roots, with the signs of the weights at the start."""
        assert self.weights is not None
        starts = self.weights.new_tensor([self._start_weights[place] for place in self._trained_places])
        return torch.copysign(self.weights.detach().square(), starts)


@trainable_merges.register("linear")
@dataclass(frozen=True)
class Linear(TrainableMerge):
    """Sums of the adapters' own factors are trained, as ALM does (arXiv 2505.24174).

    `paper` leaves the adapters' scaling out, as ALM's published code does.
    """

    module = LinearModule
    has_paper = True
    title = "sums of the adapters' own factors"

    def rank(self, ranks: Sequence[int]) -> int:
        """See `TrainableMerge.rank`: the largest.

        Each adapter's own factors are parameters of the optimizer, but only their sum enters the update, so K adapters are not K
        times as much to learn with.
        """
        return max(ranks)

    def counted(self, factors: Factors) -> Factors:
        """See `TrainableMerge.counted`."""
        return Factors(factors.A, factors.B) if self.paper else factors
