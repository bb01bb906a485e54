"""The contract of a trainable merge: adapters on one frozen module that are trained together and make one update.

A kind is one file with two classes. A `TrainableMerge`, a frozen dataclass in the registry `trainable_merges` under the name that
a recipe gives in `merge.method`, holds the settings. An `AdaptedModule` holds the parameters of one module and says how they make
the update. `tests/conformance/test_trainable.py` runs over every registered kind.

Axes: K trained adapters, R rank of the merged factors, G candidates, I input features, O output features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from pomona.adapters.factors import Factors
from pomona.backbone.linear_modules import weight_of
from pomona.backbone.trainable.add_low_rank import add_low_rank, add_low_rank_by_group
from pomona.backbone.trainable.coefficients import Coefficients
from pomona.errors import InputError
from pomona.importance import FactorPair
from pomona.registry import Registry


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

    `A`, `B` and, where they are trained, `weights` are its parameters, in fp32. A kind chooses their shapes; the second last axis
    of `A` is R. `fixed_A` and `fixed_B` are the update of the frozen adapters, shares included; of rank 0 where there are none.

    `weights` are the merge weights of the trained adapters, or the `coefficients` of all, which several modules may share.

    A kind implements `lay_out`, `merge`, `with_frozen`, `parts`, `own_factors` and `merged_gradient`. It overrides `merge_stack`
    and `merged_gradient_stack` where modules take fewer operations together, `export` where another way of writing the update is
    better, and `trained_weights` where `weights` are not the merge weights themselves. A kind
    with coefficients also has `tie`, and `operands` that do not multiply frozen factors.

    Args:
        path: the module's path in the model.
        base: the frozen module.
        factors: each adapter's factors on this module; None where it does not adapt it.
        weights: their merge weights; with 0 an adapter takes no part.
        dropout: share of input entries dropped before A while training, in [0, 1).
        frozen: positions of adapters that take part and are not trained.
        train_weights: whether the weights of the trained adapters are parameters.
        coefficients: how the weights of all adapters are parameters, those of frozen ones too.
    """

    keeps_apart: ClassVar[bool]
    """Whether every entry of the merged factors belongs to one adapter alone. Then pruning may give each adapter a quota."""

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
        coefficients: Coefficients | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.base = base
        self.dropout = dropout
        self.observer: Observer | None = None
        self.folded = False
        self.candidates: Candidates | None = None
        """While set, in force in place of the module's own update, without gradient, dropout or observer."""
        device = weight_of(base).device
        self.coefficients = coefficients
        self._multipliers: dict[int, float] = {}
        parts: dict[int, Part] = {}
        for place, (pair, weight) in enumerate(zip(factors, weights, strict=True)):
            if takes_part(pair, weight):
                start, self._multipliers[place] = (weight, 1.0) if coefficients is None else coefficients.start(place, weight)
                A, B = (side.detach().to(device, torch.float32) for side in (pair.A, pair.B))
                parts[place] = Part(A, B, start, pair.scaling * self._multipliers[place])
        self._start_weights = [parts[place].weight if place in parts else 0.0 for place in range(len(weights))]
        self._trained_places = [place for place in parts if place not in frozen]
        self._trained_ranks = [len(parts[place].A) for place in self._trained_places]
        others = [] if coefficients is None else [place for place in parts if place in frozen]
        self._weighted_places = [*self._trained_places, *others]
        """Positions of the adapters whose weight is a parameter, where any is."""
        self.lay_out(
            [parts[place] for place in self._trained_places],
            [part for place, part in parts.items() if place in frozen],
            train_weights and self.trained,
        )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for single, of_stack in (("merge", "merge_stack"), ("merged_gradient", "merged_gradient_stack")):
            if single in vars(cls) and of_stack not in vars(cls):  # what it would inherit has another formula
                setattr(cls, of_stack, vars(AdaptedModule)[of_stack])

    @abstractmethod
    def lay_out(self, trained: Sequence[Part], frozen: Sequence[Part], train_weights: bool) -> None:
        """Set `A`, `B`, `weights`, `fixed_A` and `fixed_B` from the adapters' parts.

        Args:
            trained: K parts. With none of them `A` and `B` need no gradient.
            frozen: parts that stay as they are.
            train_weights: whether `weights` is a parameter; else it is None.
        """

    @abstractmethod
    def merge(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """The merged factors of the trained adapters if `A` and `B` were the parameters: [R, I], scaling included, and [O, R].

        Differentiable. It may return `B` itself.
        """

    @abstractmethod
    def with_frozen(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """The whole update as one pair [R', I], [O, R'], of merged factors [R, I], [O, R] and the frozen adapters. Differentiable.

        The first R rows of A and columns of B are those of the merged factors, plus a constant where a kind adds to them.
        """

    @abstractmethod
    def parts(self, A: Tensor, B: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Each trained adapter's own part of tensors in the layout of `A` and `B`: its position -> views [R_k, I], [O, R_k].

        Both tensors may have an axis of modules before the axes of the parameters; the views have it too.
        """

    @abstractmethod
    def own_factors(self, A: Tensor, B: Tensor) -> dict[int, Factors]:
        """Each trained adapter's contribution to `merged`, by position, in its own rank: scaling 1, no gradient."""

    @abstractmethod
    def merged_gradient(self) -> FactorPair | None:
        """The loss gradient at the factors of `effective`, from that of the parameters; None where these have none.

        A row whose adapters all have weight 0 by now has no such gradient, and gets 0.
        """

    @classmethod
    def merge_stack(cls, modules: Sequence[AdaptedModule], A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """`merge` of M modules of this kind and one shape, whose parameters are stacked: [M, R, I] and [M, O, R].

        Overridden where it takes fewer operations than M; with the same bits. It may return `B` itself. A subclass that overrides
        `merge` alone is merged module by module.
        """
        merged = [module.merge(*pair) for module, *pair in zip(modules, A.unbind(), B.unbind(), strict=True)]
        merged_A, merged_B = (torch.stack(sides) for sides in zip(*merged, strict=True))
        return merged_A, merged_B

    @classmethod
    def merged_gradient_stack(cls, modules: Sequence[AdaptedModule]) -> FactorPair:
        """`merged_gradient` of M modules of this kind and one shape, 0 where there is none; new tensors."""
        found = [module.merged_gradient() or _zeros(module.effective()) for module in modules]
        return FactorPair(*(torch.stack(sides) for sides in zip(*found, strict=True)))

    def trained_weights(self) -> Tensor:
        """The present merge weight of each adapter whose weight is trained, without gradient; called only where there is one."""
        assert self.weights is not None
        return self.weights.detach()

    def coefficient_starts(self) -> dict[int, float]:
        """The merge weight that each adapter's coefficient starts at, by position, without the multiplier."""
        return {place: self._start_weights[place] for place in self._weighted_places}

    def tie(self, parameter: nn.Parameter, places: Sequence[int], multiplied: Collection[int]) -> None:
        """Take the coefficients from a parameter that other modules read too.

        Args:
            parameter: one coefficient for each of `places`.
            places: positions of adapters, those of this module among them.
            multiplied: positions at which the coefficient multiplies the module's own start.
        """
        raise NotImplementedError(f"{type(self).__name__} has no coefficients")

    @torch.no_grad()
    def export(self) -> Factors:
        """The whole update as one pair with scaling 1, frozen adapters included. Zeros stay zeros."""
        return Factors(*self.pair())

    def pair(self) -> tuple[Tensor, Tensor]:
        """The whole update as A [R', I], scaling included, and B [O, R'], differentiable."""
        return self.with_frozen(*self.merge(self.A, self.B))

    def operands(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The update as A, B and the factor of each row of A, differentiable; None for 1: what a forward pass reads."""
        return *self.pair(), None

    @torch.no_grad()
    def merged(self, A: Tensor, B: Tensor) -> Factors:
        """The merge of the trained adapters alone if `A` and `B` were the parameters: scaling 1, no gradient; it may share `B`."""
        return Factors(*self.merge(A.detach(), B.detach()))

    def effective(self) -> Factors:
        """`merged` of the present parameters: the factors that importance is measured on."""
        return self.merged(self.A, self.B)

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
        A_RI, B_OR, scale_R = self.operands()
        y, hidden = add_low_rank(y, x, A_RI, B_OR, self.dropout if self.training else 0.0, scale_R)
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
        """`pair` if `A` and `B` were the parameters, without gradient; it may share them."""
        made_A, made_B = self.with_frozen(*self.merge(A.detach(), B.detach()))
        return made_A, made_B

    def merge_weights(self) -> list[float]:
        """Every adapter's present merge weight, 0 for one that takes no part."""
        values = list(self._start_weights)
        if self.weights is not None:
            for place, value in zip(self._weighted_places, self.trained_weights().tolist(), strict=True):
                values[place] = value
        return values

    def component_weights(self) -> list[list[float]] | None:
        """The present merge weight of each component, by adapter; None unless components have coefficients."""
        return None

    def constant(self, name: str, value: Tensor) -> None:
        """Keep a tensor that is not trained and moves with the module."""
        self.register_buffer(name, value, persistent=False)


@dataclass(frozen=True, kw_only=True)
class TrainableMerge(ABC):
    """How adapters that are trained together make one update. Subclasses are frozen dataclasses, registered in `trainable_merges`.

    The keyword-only fields here are settings that every kind has; a recipe gives them by keys of its own. The fields of a subclass
    are its hyperparameters, which a recipe gives in `merge.parameters`.

    Args:
        frozen: positions of adapters that take part and are not trained (`merge.frozen`, by name).
        train_weights: whether merge weights are parameters too, one an adapter and module (`merge.weights_learning_rate`).
        coefficients: how merge weights are trained of all adapters, frozen ones too (`merge.train`); not with `train_weights`.
        paper: whether the kind does as its paper's published code does (`merge.paper`).

    Raises:
        InputError: `paper`, and the kind has no published code to follow; coefficients, and the kind is no sum of updates.
    """

    frozen: frozenset[int] = frozenset()
    train_weights: bool = False
    coefficients: Coefficients | None = None
    paper: bool = False

    module: ClassVar[type[AdaptedModule]]
    """The class that holds the parameters of one module."""

    has_paper: ClassVar[bool] = False
    """Whether `paper` means something."""

    has_coefficients: ClassVar[bool] = False
    """Whether the update is a sum over components, so that each can have a coefficient."""

    title: ClassVar[str]
    """What is trained, in the words of the report: `the adapters side by side`."""

    def __post_init__(self) -> None:
        if self.paper and not self.has_paper:
            raise InputError(f"{type(self).__name__} has no published code to follow", field="paper", value=True)
        if self.coefficients is not None and not self.has_coefficients:
            raise InputError(f"{type(self).__name__} is not a sum of the adapters' updates", field="coefficients")

    @abstractmethod
    def rank(self, ranks: Sequence[int]) -> int:
        """R of the merged factors: the rank that a module's update has to learn with.

        Args:
            ranks: of the adapters that are trained there, each >= 1, one or more.
        """

    def counted(self, factors: Factors) -> Factors:
        """An adapter's factors as they enter the merge: by default as they are, with their scaling."""
        return factors

    def attach(
        self, path: str, base: nn.Module, factors: Sequence[Factors | None], weights: Sequence[float], dropout: float
    ) -> AdaptedModule:
        """The module that takes the place of `base`; arguments as for `AdaptedModule`."""
        counted = [None if pair is None else self.counted(pair) for pair in factors]
        return self.module(path, base, counted, weights, dropout, self.frozen, self.train_weights, self.coefficients)


trainable_merges: Registry[TrainableMerge] = Registry("trainable merge")


def _zeros(factors: Factors) -> FactorPair:
    return FactorPair(torch.zeros_like(factors.A), torch.zeros_like(factors.B))


def gradients_of(modules: Sequence[AdaptedModule]) -> tuple[Tensor, Tensor] | None:
    """The stacked gradients of `A` and of `B`, new tensors; None where a module has none."""
    pairs = [(module.A.grad, module.B.grad) for module in modules]
    As, Bs = [A for A, _ in pairs if A is not None], [B for _, B in pairs if B is not None]
    return (torch.stack(As), torch.stack(Bs)) if len(As) == len(Bs) == len(pairs) else None


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient, 0 where the denominator is 0."""
    return torch.where(denominator != 0, numerator / denominator, 0.0)
