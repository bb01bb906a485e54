"""Student's t distribution for whole degrees of freedom: what an interval from few observations needs, without scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

_STEPS = 100
_MANY = 1000


def student_quantile(probability: float, degrees: int) -> float:
    """The t that a Student variable stays below with the given probability: `P(T <= t) = probability`.

    Newton's method on the closed form of the distribution (Abramowitz & Stegun, "Handbook of Mathematical Functions" (1964),
    26.7.3 and 26.7.4). Above 0 the distribution function is concave and its quantiles lie beyond the normal ones, so that steps
    from the normal quantile never overshoot. Above 1000 degrees of freedom the expansion about the normal quantile (26.7.5) is as
    exact.

    Args:
        probability: in (0, 1); up to 1 - 1e-4 the result is exact to ten digits, closer to 1 only as far as `1 - probability` is.
        degrees: degrees of freedom, >= 1.

    Raises:
        ValueError: an argument out of its range.
    """
    if not 0.0 < probability < 1.0 or degrees < 1:
        raise ValueError(f"probability must be in (0, 1) and degrees >= 1, not {probability} and {degrees}")
    if probability < 0.5:
        return -student_quantile(1.0 - probability, degrees)
    t = NormalDist().inv_cdf(probability)
    if degrees > _MANY:
        return _near_normal(t, degrees)
    for _ in range(_STEPS):
        step = (probability - _below(t, degrees)) / _density(t, degrees)
        t += step
        if step <= 1e-14 * t:
            break
    return t


def _near_normal(z: float, degrees: int) -> float:
    """The expansion in 1 / degrees, to its third power."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _below(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0: a finite series in the cosine of `angle = atan(t / sqrt(degrees))`."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    # Each term is the one before times cos^2 * k / (k + 1), with k = 1, 3, 5 .. for even degrees and 2, 4, 6 .. for odd ones.
    k = np.arange(1.0 + odd, degrees - 2.0, 2.0)
    terms = np.cumprod(np.concatenate([[1.0], math.cos(angle) ** 2 * k / (k + 1.0)]))
    if not odd:
        return 0.5 + 0.5 * math.sin(angle) * float(terms.sum())
    series = math.sin(angle) * math.cos(angle) * float(terms.sum()) if degrees > 1 else 0.0
    return 0.5 + (angle + series) / math.pi


def _density(t: float, degrees: int) -> float:
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    return math.exp(scale - 0.5 * (degrees + 1) * math.log1p(t * t / degrees))
