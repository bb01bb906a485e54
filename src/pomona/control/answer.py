"""What a controller or a search says in the end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GroupRatio:
    """The prune ratio of one group of layers, in [0, 1], and its 95 % interval; equal to it where it was given."""

    prune_ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Answer:
    """The prune ratio that was found, and how sure it is.

    Args:
        prune_ratio: p*, in [0, 1]; where layers have ratios of their own, their mean by entries.
        low, high: 95 % interval of p*; equal to it where the ratio was given, not learned.
        flat: the data do not tell the ratios apart: no candidate differs from another beyond the noise of the examples.
        curve: what a ratio gains over the answer, as (prune ratio, gain, low, high) points, with 95 % intervals: nats per token of
            the micro dev loss (or what else rewards the run), or, of a search, the unit of its dev scores. Empty where there is
            none.
        by_group: a ratio for each group of neighbouring layers; empty where one is for all. The curve is then what one ratio
            for all would gain.
    """

    prune_ratio: float
    low: float
    high: float
    flat: bool
    curve: tuple[tuple[float, float, float, float], ...] = field(default=())
    by_group: tuple[GroupRatio, ...] = field(default=())

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of each group of layers; one alone for all layers."""
        return tuple(one.prune_ratio for one in self.by_group) or (self.prune_ratio,)
