"""Which ratios to try next: those whose losses, as far as can be foretold, best tell the ratio to answer with.

Axes: O outcomes, S draws of the curve, J ratios of a round, M ratios that may be tried, P points of the allowed range.

The expected value of a round: outcomes are foretold from what is believed, each would weigh the draws anew, and the least
expected shortfall of an answer then, in the mean over the outcomes, is what the round would leave. Ratios are added one by one,
each time the one that leaves least.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from pomona.control.belief import Belief, shortfall
from pomona.control.noise import lasting_features

Array = np.ndarray

_OUTCOMES, _DRAWS = 48, 400
_MAY_BE_TRIED = 15
MOST_RATIOS = _MAY_BE_TRIED - 1
"""The most ratios that a round can try beside its reference."""

_COARSER = 4


def next_ratios(belief: Belief, reference: float, wanted: int, seed: int) -> tuple[float, ...]:
    """The ratios to try beside the reference, in rising order.

    Args:
        belief: what is known.
        reference: the ratio that is measured in any case.
        wanted: how many, 1 to `MOST_RATIOS`; they differ from each other and from the reference.
        seed: of the outcomes.
    """
    may_be_tried = np.linspace(belief.low, belief.high, _MAY_BE_TRIED)
    may_be_tried = np.append(may_be_tried[np.abs(may_be_tried - reference) > 1e-9], reference)
    left = _Foretold(belief, may_be_tried, wanted + 1, np.random.default_rng(seed))
    chosen = [len(may_be_tried) - 1]
    for _ in range(wanted):
        others = [m for m in range(len(may_be_tried)) if m not in chosen]
        chosen.append(min(others, key=lambda m: left.expected_shortfall([*chosen, m])))
    return tuple(sorted(float(may_be_tried[m]) for m in chosen[1:]))


class _Foretold:
    """Draws of the curve and outcomes of a round, the same whatever ratios are compared."""

    def __init__(self, belief: Belief, may_be_tried: Float64[Array, " M"], measured: int, random: np.random.Generator) -> None:
        draws = random.choice(len(belief.coefficients_SF), _DRAWS, replace=False)
        lasting = belief.lasting_S2[draws] @ lasting_features(may_be_tried, belief.low, belief.high).T
        self._seen_SM = belief.curves(may_be_tried)[draws] + lasting
        self._shortfall_SP = shortfall(belief.curves(belief.grid[::_COARSER])[draws])
        self._deviation_M = np.sqrt(belief.noise.probe(may_be_tried) / belief.n)
        self._noise_OJ = random.standard_normal((_OUTCOMES, measured))

    def expected_shortfall(self, ratios: list[int]) -> float:
        """What a round at these ratios would leave."""
        deviation_J = self._deviation_M[ratios]
        seen_SJ = self._seen_SM[:, ratios]
        outcome_OJ = seen_SJ[:_OUTCOMES] + self._noise_OJ[:, : len(ratios)] * deviation_J
        # Each round has a level of its own: only differences within it count.
        weight_J = 1 / deviation_J**2
        off_OSJ = outcome_OJ[:, None] - seen_SJ
        off_OSJ -= (off_OSJ * weight_J).sum(axis=-1, keepdims=True) / weight_J.sum()
        log_likelihood_OS = -0.5 * (off_OSJ**2 * weight_J).sum(axis=-1)
        share_OS = np.exp(log_likelihood_OS - log_likelihood_OS.max(axis=1, keepdims=True))
        share_OS /= share_OS.sum(axis=1, keepdims=True)
        return float((share_OS @ self._shortfall_SP).min(axis=1).mean())
