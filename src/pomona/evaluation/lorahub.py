"""LoRAHub: the source adapters composed with weights that a search without gradients finds on the training examples.

Axes: K adapters, R rank, I input features, O output features.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.carried_config import carried
from pomona.adapters.compatible import adapter_name
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.model_order import model_order
from pomona.errors import InputError, MissingPackageError
from pomona.evaluation.baselines import Baseline, Trainer, baselines
from pomona.seeding import derive_seed


@baselines.register("lorahub")
@dataclass(frozen=True)
class LoraHub(Baseline):
    """The source adapters composed with searched weights, not trained (Huang et al. 2023, arXiv 2307.13269).

    `A = sum_k w_k sqrt(s_k) A_k`, `B = sum_k w_k sqrt(s_k) B_k`, and w minimises `loss(w) + penalty * sum_k |w_k|` over
    `-bound <= w_k <= bound`, from w = 0. The loss is that of the training examples, nats per completion token. The search is
    nevergrad's NGOpt, which for so few evaluations is COBYLA; the best weights that it tried are taken.

    The product has cross terms `w_i w_j B_i A_j`, as published: weights act on the factors, so an adapter by itself is scaled by
    w^2 and cannot be negated. The recipe's merge weights play no part.

    The published code divides the penalty by the number of adapters, where the paper has the sum, and the sum of its batches'
    mean losses by the number of examples, so that the loss weighs less the larger a batch is. It wants factors of one shape and
    takes the first adapter's scaling for all. Here smaller ranks are padded with zeros, an adapter without a module adds nothing
    to it, and every adapter has its own scaling (a negative one's sign goes to A).

    Args:
        evaluations: losses that the search asks for, from 1 to 50; below 1 + the number of adapters, some are never tried.
        bound: largest |w_k|, > 0.
        penalty: nats for a unit of weight, >= 0.

    Raises:
        MissingPackageError: nevergrad is not installed.
    """

    trains: ClassVar[bool] = True
    evaluations: int = 40
    bound: float = 1.5
    penalty: float = 0.05

    def __post_init__(self) -> None:
        # Above 50 for each adapter NGOpt turns to methods that look at the clock and draw from NumPy's global state.
        if not 1 <= self.evaluations <= 50:
            raise InputError("must be from 1 to 50", field="evaluations", value=self.evaluations)
        if not 0 < self.bound < math.inf:
            raise InputError("must be above 0", field="bound", value=self.bound)
        if not 0 <= self.penalty < math.inf:
            raise InputError("must be at least 0", field="penalty", value=self.penalty)
        if importlib.util.find_spec("nevergrad") is None:
            raise MissingPackageError(
                "the baseline lorahub needs nevergrad, which is not installed",
                fix='Install it with `pip install "pomona[search]"`, or leave out the baseline',
            )

    @property
    def label(self) -> str:
        """What tables call it."""
        return "LoRAHub"

    @property
    def description(self) -> str:
        """What it is."""
        return "the source adapters composed with weights searched on the training examples"

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """Search, and compose what was found."""

        def find(loss: Callable[[Adapter], float]) -> Adapter:
            compose = Composition(trainer.sources)

            def objective(weights: Sequence[float]) -> float:
                return loss(compose(weights)) + self.penalty * sum(map(abs, weights))

            seed = derive_seed(trainer.seed, "lorahub")
            return compose(search(objective, len(trainer.sources), self.evaluations, self.bound, seed))

        return trainer.search(system, self.evaluations, find)


class Composition:
    """Adapters laid on top of each other once, so that they can be summed with other weights again and again.

    Args:
        adapters: one or more that fit each other; copied to fp32 in memory.
    """

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        modules = sorted({module for adapter in adapters for module in adapter}, key=model_order)
        self._stacks = {module: _stack([adapter.factors.get(module) for adapter in adapters]) for module in modules}
        self._base_model = next((adapter.base_model for adapter in adapters if adapter.base_model), None)
        self._embeddings = frozenset[str]().union(*(adapter.embeddings for adapter in adapters))
        self._carried = carried(adapters)
        self._sources = [adapter_name(adapter, place) for place, adapter in enumerate(adapters)]

    def __call__(self, weights: Sequence[float]) -> Adapter:
        """`A = sum_k w_k sqrt(s_k) A_k`, `B = sum_k w_k sqrt(s_k) B_k` in every module, fp32, scaling 1.

        Args:
            weights: w_k, one for each adapter.
        """
        w_K = torch.tensor(weights, dtype=torch.float32)
        factors = {
            module: Factors(torch.tensordot(w_K.to(A_KRI.device), A_KRI, 1), torch.tensordot(w_K.to(B_KOR.device), B_KOR, 1))
            for module, (A_KRI, B_KOR) in self._stacks.items()
        }
        provenance: dict[str, object] = {
            "method": "lorahub",
            "weights": list(weights),
            "sources": self._sources,
            **self._carried,
        }
        return Adapter(factors, self._base_model, provenance, self._embeddings)


def _stack(present: Sequence[Factors | None]) -> tuple[Float[Tensor, "K R I"], Float[Tensor, "K O R"]]:
    """One module's factors with the roots of their scalings, padded with zeros to one rank; None is an update of zero."""
    some = next(one for one in present if one is not None)
    rank = max(one.rank for one in present if one is not None)
    A_KRI = torch.zeros(len(present), rank, some.in_features, device=some.A.device)
    B_KOR = torch.zeros(len(present), some.out_features, rank, device=some.B.device)
    for place, one in enumerate(present):
        if one is not None:
            root = math.sqrt(abs(one.scaling))
            A_KRI[place, : one.rank] = one.A.detach().float() * math.copysign(root, one.scaling)
            B_KOR[place, :, : one.rank] = one.B.detach().float() * root
    return A_KRI, B_KOR


def search(objective: Callable[[Sequence[float]], float], count: int, evaluations: int, bound: float, seed: int) -> list[float]:
    """The best weights that nevergrad's NGOpt tries, the first of them where several are equally good.

    Args:
        objective: weights -> what is to be small; without noise.
        count: how many weights.
        evaluations: how often the objective is asked, exactly; first for zeros.
        bound: largest size of a weight.
        seed: of the search, for a choice of NGOpt's that draws (COBYLA does not).
    """
    import nevergrad
    import numpy as np

    space = nevergrad.p.Array(init=np.zeros(count), lower=-bound, upper=bound)
    space.random_state = np.random.RandomState(np.random.MT19937(seed))
    optimizer = nevergrad.optimizers.NGOpt(space, budget=evaluations)
    best: tuple[float, list[float]] | None = None
    try:
        with warnings.catch_warnings():
            # Of how the libraries talk to each other: nothing that a user could fix.
            warnings.filterwarnings("ignore", module="nevergrad|scipy|sklearn|cma")
            for _ in range(evaluations):
                candidate = optimizer.ask()
                weights = candidate.value.tolist()
                value = objective(weights)
                optimizer.tell(candidate, value)
                if best is None or value < best[0]:
                    best = value, weights
    finally:
        # Its thread waits for an answer until it is gone, and would keep the process from ending.
        del optimizer
    assert best is not None
    return best[1]
