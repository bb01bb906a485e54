"""What an importance metric is: scores of every entry of a module's two factors, from the factors and streamed statistics.

Axes: M modules where several are stacked, R rank, I input features, O output features. x [I] is a module's input, one token at a
time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.factors import Factors
from pomona.registry import Registry
from pomona.seeding import derive_seed


class FactorPair(NamedTuple):
    """A tensor for each of a module's two factors, of their shapes."""

    A: Float[Tensor, "*M R I"]
    B: Float[Tensor, "*M O R"]


@dataclass(frozen=True, eq=False)
class StackedFactors(Factors):
    """The factors of M modules of one shape, in one tensor for all A and one for all B; scaling 1.

    Raises:
        ValueError: the tensors are not those of M pairs of one rank.
    """

    A: Float[Tensor, "M R I"]
    B: Float[Tensor, "M O R"]

    def __post_init__(self) -> None:
        A, B = self.A.shape, self.B.shape
        if len(A) != 3 or len(B) != 3 or (A[0], A[1]) != (B[0], B[2]):
            raise ValueError(f"A {tuple(A)} and B {tuple(B)} are not [M, R, I] and [M, O, R]")

    def each(self) -> list[Factors]:
        """Each module's own factors, which are views."""
        return [Factors(*pair) for pair in zip(self.A.unbind(), self.B.unbind(), strict=True)]


class Smoothed(NamedTuple):
    """Exponential moving averages of the sensitivity `|W * dL/dW|`: its mean, and its mean distance from that mean."""

    mean: FactorPair
    uncertainty: FactorPair


@dataclass(frozen=True, eq=False)
class ModuleStatistics:
    """What is known of one module, up to one positive constant common to both norms, and to those of all modules.

    Args:
        input_norm_I: L2 norm of each input feature over the non-padding tokens seen, [I], >= 0.
        hidden_norm_R: L2 norm of each component of A x over the same tokens, [R], >= 0.
        gradient: the last optimizer step's gradient of the loss by each factor; None where no metric asked for it.
        smoothed: averages over the steps so far; None where no metric asked for them.
        seed: of random draws for this module; it is the same in all steps of a run.

    Those of M modules of one shape may be stacked: then every tensor has their axis first, and there is no seed.
    """

    input_norm_I: Float[Tensor, "*M I"]
    hidden_norm_R: Float[Tensor, "*M R"]
    gradient: FactorPair | None = None
    smoothed: Smoothed | None = None
    seed: int = 0

    def of_components(self, rank: int, place: int) -> ModuleStatistics:
        """The same of the first `rank` components alone: the statistics of the adapter at `place`, which has draws of its own."""
        pairs = (self.gradient, *(self.smoothed or (None, None)))
        gradient, mean, uncertainty = (pair and FactorPair(pair.A[:rank], pair.B[:, :rank]) for pair in pairs)
        smoothed = Smoothed(mean, uncertainty) if mean and uncertainty else None
        return ModuleStatistics(self.input_norm_I, self.hidden_norm_R[:rank], gradient, smoothed, derive_seed(self.seed, place))

    def each(self, seeds: Sequence[int]) -> list[ModuleStatistics]:
        """The statistics of each of the stacked modules, which are views, with their seeds."""

        def own(pair: FactorPair, place: int) -> FactorPair:
            return FactorPair(pair.A[place], pair.B[place])

        return [
            ModuleStatistics(
                self.input_norm_I[place],
                self.hidden_norm_R[place],
                self.gradient and own(self.gradient, place),
                self.smoothed and Smoothed(own(self.smoothed.mean, place), own(self.smoothed.uncertainty, place)),
                seed,
            )
            for place, seed in enumerate(seeds)
        ]


class ImportanceMetric(ABC):
    """How much each entry of A and B matters. Subclasses are frozen dataclasses, one a file, registered in `importance_metrics`.

    `scores` runs for every adapted module after each optimizer step: it may touch each entry of the factors a few times, and
    must never hold an O x I matrix; what can only be had from the dense update reads it in blocks (`Factors.delta_blocks`).
    """

    needs_activations: ClassVar[bool]
    """Whether `scores` reads the norms; where False, nobody needs to collect them."""

    needs_gradient: ClassVar[bool] = False
    """Whether `scores` reads `gradient`."""

    zero_is_unimportant: ClassVar[bool] = True
    """Whether every entry of a factor of zeros scores 0. False for a metric that does not read an entry's own value."""

    takes_stacks: ClassVar[bool] = False
    """Whether `scores` also takes the factors and statistics of M modules of one shape at once, with their axis first, and gives
    each module the scores that it gets by itself. One operation for all modules is worth most on an accelerator."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "scores" in vars(cls) and "takes_stacks" not in vars(cls):
            cls.takes_stacks = False  # an inherited promise is of other scores

    @property
    def smoothing(self) -> tuple[float, float] | None:
        """Shares in [0, 1) that the averages of `smoothed` keep at a step: of the mean, of the uncertainty. None: not read."""
        return None

    @abstractmethod
    def scores(self, factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M R I"], Float[Tensor, "*M O R"]]:
        """Scores of A and of B, >= 0; the lowest are pruned first. Only their order counts: within a factor, or in a wider scope.

        Args:
            factors: one module's merged factors, the scaling folded into A; neither is changed. `StackedFactors` where the metric
                takes stacks.
            statistics: what is known of the same module, on the same device.

        Returns:
            Scores of A, [R, I], and of B, [O, R], without gradient; new tensors, in fp32 at least where the metric computes.

        Raises:
            ValueError: the statistics do not fit the factors, or lack what the metric needs.
        """


importance_metrics: Registry[ImportanceMetric] = Registry("importance metric")


# What metrics read: checked against the factors, and in fp32 at least, so that bf16 rounds no score.


def norms_of(factors: Factors, statistics: ModuleStatistics) -> tuple[Float[Tensor, "*M I"], Float[Tensor, "*M R"]]:
    """The norms of a module's input and of its hidden values.

    Raises:
        ValueError: their lengths are not those of the factors.
    """
    input_norm_I, hidden_norm_R = statistics.input_norm_I, statistics.hidden_norm_R
    *modules, rank, in_features = factors.A.shape
    if input_norm_I.shape != (*modules, in_features) or hidden_norm_R.shape != (*modules, rank):
        raise ValueError(
            f"norms of shape {tuple(input_norm_I.shape)} and {tuple(hidden_norm_R.shape)} do not fit factors with "
            f"{in_features} input features and rank {rank}"
        )
    return at_least_fp32(input_norm_I), at_least_fp32(hidden_norm_R)


def gradient_of(factors: Factors, statistics: ModuleStatistics) -> FactorPair:
    """The gradient of the loss by each factor.

    Raises:
        ValueError: there is none, or its shapes are not those of the factors.
    """
    return _fitting("gradient", statistics.gradient, factors)


def smoothed_of(factors: Factors, statistics: ModuleStatistics) -> Smoothed:
    """The averages of the sensitivity.

    Raises:
        ValueError: there are none, or their shapes are not those of the factors.
    """
    mean, uncertainty = statistics.smoothed or (None, None)
    return Smoothed(_fitting("smoothed mean", mean, factors), _fitting("smoothed uncertainty", uncertainty, factors))


def at_least_fp32(tensor: Tensor) -> Tensor:
    """The tensor itself if it is fp32 or fp64, else its values in fp32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _fitting(what: str, pair: FactorPair | None, factors: Factors) -> FactorPair:
    if pair is None:
        raise ValueError(f"the metric reads the {what}, which the statistics lack")
    if pair.A.shape != factors.A.shape or pair.B.shape != factors.B.shape:
        raise ValueError(
            f"the {what} of shapes {tuple(pair.A.shape)} and {tuple(pair.B.shape)} does not fit factors of shapes "
            f"{tuple(factors.A.shape)} and {tuple(factors.B.shape)}"
        )
    return FactorPair(at_least_fp32(pair.A), at_least_fp32(pair.B))


def widened(factors: Factors) -> Factors:
    """The same factors in one dtype, fp32 or fp64, without gradient."""
    A, B = factors.A.detach(), factors.B.detach()
    dtype = torch.promote_types(torch.promote_types(A.dtype, B.dtype), torch.float32)
    return Factors(A.to(dtype), B.to(dtype), factors.scaling)
