"""The control for the sources: noise of the same size in their place.

Axes: R rank, I input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pomona.adapters.factors import Adapter, Factors
from pomona.evaluation.baselines import MergeFinetune, Trainer, baselines
from pomona.seeding import stream


@baselines.register("random_sources")
@dataclass(frozen=True)
class RandomSources(MergeFinetune):
    """The same merge and training as `merge_finetune`, with the factors of every source replaced by normal noise.

    In each module, `A_RI ~ N(0, rms(A)^2)` and `B_OR ~ N(0, rms(B)^2)`, with the root mean squares of the source's own factors, so
    each factor has the size that the source has, and none of its content. The draws follow the run's seed. Modules, ranks,
    scalings, merge weights and a target LoRA in the merge stay. If the merge is not significantly better than this control, the
    sources' content is not shown to help: the gain may be regularisation (arXiv 2602.12323).
    """

    @property
    def label(self) -> str:
        """What tables call it."""
        return "Random sources"

    @property
    def description(self) -> str:
        """What it is."""
        return "the same merge and training as merge + fine-tune, with noise of the sources' size in place of the sources"

    def make(self, system: str, trainer: Trainer) -> Adapter | None:
        """Draw the noise, and train the merge."""
        return trainer.train_merge(
            system, [noise(source, stream(trainer.seed, "random_sources", place)) for place, source in enumerate(trainer.sources)]
        )


def noise(adapter: Adapter, generator: torch.Generator) -> Adapter:
    """An adapter of the same shapes, scalings and sizes whose factors are normal noise.

    Args:
        adapter: gives the shapes and the sizes.
        generator: the only source of randomness; on the CPU.
    """

    def drawn(factor: Tensor) -> Tensor:
        size = factor.detach().double().square().mean().sqrt()
        return torch.randn(factor.shape, generator=generator) * float(size)

    factors = {}
    for module in adapter:
        one = adapter[module]
        factors[module] = Factors(drawn(one.A), drawn(one.B), one.scaling)
    return replace(adapter, factors=factors)
