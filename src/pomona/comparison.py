"""How one system compares with another: the evaluation makes it, the record and the report hold it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True)
class Comparison:
    """A paired difference, `system` minus `baseline`, over the same test examples, with its 95 % interval.

    `difference`, `low`, `high` are in points, or nats for the loss; `p_value` is two-sided; `n` counts the examples on which both
    have a score. `p_holm` is the p-value corrected for all comparisons on this metric that the record holds (Holm, 1979).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    system: str
    baseline: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    n: int
    p_holm: float | None = None
