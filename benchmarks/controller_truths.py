"""Loss curves with a known best prune ratio, and a micro dev set that follows them: the test cases of `controller_toy`.

Example i has the loss `level_i + f(p) + a_i q + b_i (q^2 - 1/2) + noise`, q from -1 at ratio 0.1 to 1 at 0.8. Its level N(2, 0.5)
is drawn again in each round, the noise at each probe, a_i and b_i once: as in real data, some examples always tolerate pruning
better than others. To try other curves, write a similar file and pass its rows to `controller_toy.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LOW, HIGH, EXAMPLES = 0.1, 0.8, 16

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Truth:
    """A kind of curve.

    Args:
        name: as printed.
        curve: draws one: the mean loss over endless examples at each ratio, in nats.
        noise: deviation of a probe of one example at ratio 0, in nats.
        growth: that deviation at ratio p is `1 + growth p` times as large.
        lasting: deviation of a_i and b_i.
    """

    name: str
    curve: Callable[[np.random.Generator], Curve]
    noise: float
    growth: float = 0.0
    lasting: float = 0.0


def _parabola(bend: float, low: float, high: float) -> Callable[[np.random.Generator], Curve]:
    def draw(rng: np.random.Generator) -> Curve:
        best = rng.uniform(low, high)
        return lambda p: bend * (p - best) ** 2

    return draw


def _cliff(rng: np.random.Generator) -> Curve:
    place = rng.uniform(0.35, 0.75)
    return lambda p: -0.1 * p + np.maximum(0.0, p - place)


TRUTHS: Sequence[Truth] = (
    Truth("1.5 (p - o)^2", _parabola(1.5, 0.2, 0.7), 0.158),
    Truth("0.3 (p - o)^2", _parabola(0.3, 0.2, 0.7), 0.05, lasting=0.05),
    Truth("20 (p - o)^2", _parabola(20.0, 0.15, 0.75), 0.158, lasting=0.2),
    Truth("convex, best at 0.1", lambda rng: lambda p: 0.0078 * (np.exp(3.5 * p) - 1), 0.03, lasting=0.05),
    Truth("line, best at 0.8", lambda rng: lambda p: -0.15 * p, 0.03, lasting=0.05),
    Truth("cliff: -0.1 p + max(0, p - c)", _cliff, 0.03, lasting=0.1),
    Truth("cliff, noise growing with p", _cliff, 0.03, growth=8.0, lasting=0.1),
)

FLAT = Truth("flat", lambda rng: lambda p: 0.0 * p, 0.05, lasting=0.05)


class MicroDev:
    """One draw of a truth and of the examples that bear it.

    Args:
        truth: the kind of curve.
        seed: of everything that is drawn.
    """

    def __init__(self, truth: Truth, seed: int) -> None:
        self._truth, self._rng = truth, np.random.default_rng([seed, sum(map(ord, truth.name))])
        self.loss = truth.curve(self._rng)
        self._slope_N, self._bend_N = self._rng.normal(0, truth.lasting, (2, EXAMPLES))
        grid = np.linspace(LOW, HIGH, 1401)
        self.best, self._least = float(grid[self.loss(grid).argmin()]), float(self.loss(grid).min())

    def probe(self, prune_ratios: Sequence[float]) -> np.ndarray:
        """Each example's loss at each ratio in one round, [N, ratios]."""
        p = np.asarray(prune_ratios)
        q = (2 * p - LOW - HIGH) / (HIGH - LOW)
        level_N = self._rng.normal(2, 0.5, EXAMPLES)
        noise = self._rng.normal(0, 1, (EXAMPLES, len(p))) * self._truth.noise * (1 + self._truth.growth * p)
        effects = self._slope_N[:, None] * q + self._bend_N[:, None] * (q * q - 0.5)
        return level_N[:, None] + self.loss(p) + effects + noise

    def regret(self, prune_ratio: float) -> float:
        """Its mean loss over endless examples above the least in the allowed range, in thousandths of a nat."""
        return 1000 * (float(self.loss(np.array(prune_ratio))) - self._least)
