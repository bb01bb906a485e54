"""A frozen linear module with a trainable merge of adapters beside it: what every kind of merge has in common.

Axes: R rank of what the trained adapters make together, G candidates, I input features, O output features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar, NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.low_rank import add_low_rank, add_low_rank_by_group
from pomona.importance import FactorPair


class Observer(Protocol):
    """Sees what flows through each adapted module."""

    def __call__(self, module: str, inputs: Tensor, hidden: Tensor) -> None:
        """Take in a module's inputs [..., I] and what its trained columns of B read [..., R]; neither may be changed."""


class Part(NamedTuple):
    """One adapter's part in one module: fp32 factors on the module's device."""

    A: Tensor
    B: Tensor
    weight: float
    scaling: float

    @property
    def share(self) -> float:
        """The factor before B A."""
        return self.weight * self.scaling


class Candidates(NamedTuple):
    """Updates of one module that share a forward pass: a row gets that of its group, the g-th of G equal parts of all rows.

    Args:
        A_GRI: each candidate's A as `AdaptedModule.pair` has it.
        B_GOR: each candidate's B.
        rows: of the whole pass.
    """

    A_GRI: Tensor
    B_GOR: Tensor
    rows: int


class RowsDifferError(ValueError):
    """A module does not read all tokens of the pass, such as an expert of a mixture: whose they are cannot be told."""


def takes_part(pair: Factors | None, weight: float) -> TypeGuard[Factors]:
    """Whether an adapter takes part in a module: it has the module with some rank, and its weight there is not 0."""
    return pair is not None and pair.rank > 0 and weight != 0


class AdaptedModule(nn.Module, ABC):
    """A frozen linear module with a trainable low-rank update beside it.

    `A`, `B` and, where they are trained, `weights` are its parameters, in fp32; each subclass has shapes of its own.
    `fixed_A` and `fixed_B` are what the frozen adapters make, shares included; of rank 0 where there are none.

    Args:
        path: the module's path in the model.
        base: the frozen module.
        factors: each adapter's factors on this module; None where it does not adapt it.
        weights: their merge weights; with 0 an adapter takes no part.
        dropout: share of input entries dropped before A while training, in [0, 1).
        frozen: positions of adapters that take part and are not trained.
        train_weights: whether the weights of the trained adapters are parameters.
    """

    keeps_apart: ClassVar[bool]
    """Whether every entry of the merged factors is one adapter's own."""

    A: nn.Parameter
    B: nn.Parameter
    weights: nn.Parameter | None
    fixed_A: Tensor
    fixed_B: Tensor

    def __init__(
        self,
        path: str,
        base: nn.Module,
        factors: Sequence[Factors | None],
        weights: Sequence[float],
        dropout: float,
        frozen: Collection[int] = (),
        train_weights: bool = False,
    ) -> None:
        super().__init__()
        self.path = path
        self.base = base
        self.dropout = dropout
        self.observer: Observer | None = None
        self.folded = False
        self.candidates: Candidates | None = None
        """While set, in force in place of the module's own update, without gradient, dropout or observer."""
        device = linear_device(base)
        parts = {
            place: Part(pair.A.detach().to(device, torch.float32), pair.B.detach().to(device, torch.float32), weight, pair.scaling)
            for place, (pair, weight) in enumerate(zip(factors, weights, strict=True))
            if takes_part(pair, weight)
        }
        self._start_weights = [parts[place].weight if place in parts else 0.0 for place in range(len(weights))]
        self._trained_places = [place for place in parts if place not in frozen]
        self._trained_ranks = [len(parts[place].A) for place in self._trained_places]
        self._lay_out(
            [parts[place] for place in self._trained_places],
            [part for place, part in parts.items() if place in frozen],
            train_weights and self.trained,
        )

    @abstractmethod
    def _lay_out(self, trained: Sequence[Part], frozen: Sequence[Part], train_weights: bool) -> None:
        """Make the parameters and constants from the adapters' parts."""

    @abstractmethod
    def pair(self) -> tuple[Tensor, Tensor]:
        """The whole update as A [R', I], scaling included, and B [O, R'], differentiable; trained columns come first."""

    @abstractmethod
    def merged(self, A: Tensor, B: Tensor) -> Factors:
        """The merge of the trained adapters alone, were `A` and `B` their parameters: scaling 1, no gradient."""

    @abstractmethod
    def parts(self, A: Tensor, B: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Each trained adapter's own part of tensors that are laid out as `A` and `B`: its position -> views [R_k, I], [O, R_k]."""

    @abstractmethod
    def own_factors(self, A: Tensor, B: Tensor) -> dict[int, Factors]:
        """What each trained adapter brings into `merged`, by its position, in its own rank: scaling 1, no gradient."""

    @abstractmethod
    def merged_gradient(self) -> FactorPair | None:
        """The loss gradient by the factors of `effective`, from that of the parameters; None where these have none.

        A row whose adapters all have weight 0 by now has no such gradient, and gets 0.
        """

    @abstractmethod
    def export(self) -> Factors:
        """The whole update as one pair with scaling 1, frozen adapters included. Zeros stay zeros."""

    @abstractmethod
    def _trained_weights(self) -> Tensor:
        """What `weights` stands for: w_k of each trained adapter."""

    @property
    def trained(self) -> bool:
        """Whether any adapter of this module is trained."""
        return bool(self._trained_places)

    def forward(self, x: Tensor) -> Tensor:
        """`base(x) + B (A dropout(x))`, or `base(x)` alone where the update is folded into the base."""
        y = self.base(x)
        if self.folded:
            return y
        if self.candidates is not None:
            return self._with_candidates(y, x, self.candidates)
        A_RI, B_OR = self.pair()
        y, hidden = add_low_rank(y, x, A_RI, B_OR, self.dropout if self.training else 0.0)
        if self.observer is not None:
            self.observer(self.path, x, hidden[..., : self.A.shape[-2]])
        return y

    def _with_candidates(self, y: Tensor, x: Tensor, candidates: Candidates) -> Tensor:
        A_GRI, B_GOR, rows = candidates
        if len(A_GRI) > 1 and x.numel() != rows * x.shape[-1]:
            raise RowsDifferError(f"{self.path} reads {x.numel() // x.shape[-1]} of {rows} rows")
        return add_low_rank_by_group(y, x, A_GRI, B_GOR)

    @torch.no_grad()
    def pair_of(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """`pair`, were `A` and `B` the parameters; it may share them."""
        kept_A, kept_B = self.A.data, self.B.data
        try:
            self.A.data, self.B.data = A.detach(), B.detach()
            made_A, made_B = self.pair()
            return made_A.detach(), made_B.detach()  # what stands for B may be the parameter, which is about to change
        finally:
            self.A.data, self.B.data = kept_A, kept_B

    def effective(self) -> Factors:
        """`merged` of the parameters as they are: what importance is measured on."""
        return self.merged(self.A, self.B)

    def merge_weights(self) -> list[float]:
        """Every adapter's present merge weight, 0 for one that takes no part."""
        values = list(self._start_weights)
        if self.weights is not None:
            for place, value in zip(self._trained_places, self._trained_weights().tolist(), strict=True):
                values[place] = value
        return values

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)


def linear_device(module: nn.Module) -> torch.device:
    """Where a linear module's weight is."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.device


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient, 0 where the denominator is 0."""
    return torch.where(denominator != 0, numerator / denominator, 0.0)
