"""Quantiles and tail probabilities of Student's t distribution, without scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

_STEPS = 100
_TERMS = 1000
_MANY = 1000
_TINY = 1e-300


def student_quantile(probability: float, degrees: float) -> float:
    """The quantile t of a Student variable T: `P(T <= t) = probability`.

    Newton's method on the distribution function. Above 0 this function is concave and its quantiles exceed the normal quantiles,
    so that steps from the normal quantile never overshoot. Above 1000 degrees of freedom the expansion about the normal quantile
    (Abramowitz & Stegun, "Handbook of Mathematical Functions" (1964), 26.7.5) is equally exact.

    Args:
        probability: in (0, 1); up to 1 - 1e-4 the result is exact to ten digits, closer to 1 only as exact as `1 - probability`.
        degrees: degrees of freedom, >= 1, whole or not.

    Raises:
        ValueError: an argument out of its range.
    """
    if not 0.0 < probability < 1.0 or not degrees >= 1:
        raise ValueError(f"probability must be in (0, 1) and degrees >= 1, not {probability} and {degrees}")
    if probability < 0.5:
        return -student_quantile(1.0 - probability, degrees)
    t = NormalDist().inv_cdf(probability)
    if degrees > _MANY:
        return _near_normal(t, degrees)
    for _ in range(_STEPS):
        step = (student_tail(t, degrees) - (1.0 - probability)) / _density(t, degrees)
        t += step
        if step <= 1e-14 * t:
            break
    return t


def student_tail(t: float, degrees: float) -> float:
    """The probability that a Student variable exceeds t.

    `P(T > t) = I_x(degrees / 2, 1 / 2) / 2` with `x = degrees / (degrees + t ** 2)`, where I is the regularised incomplete beta
    function (Abramowitz & Stegun, 26.7.1), computed by a continued fraction (26.5.8).

    Args:
        t: >= 0.
        degrees: degrees of freedom, >= 1, whole or not.

    Raises:
        ValueError: an argument out of its range.
    """
    if not t >= 0.0 or not degrees >= 1:
        raise ValueError(f"t must be >= 0 and degrees >= 1, not {t} and {degrees}")
    if math.isinf(t):
        return 0.0
    if degrees > 1e7:  # the fraction would lose its digits, and the normal distribution is as near
        return 0.5 * math.erfc(t / math.sqrt(2.0))
    a, b = degrees / 2.0, 0.5
    square = t * t
    x, rest = degrees / (degrees + square), square / (degrees + square)
    if x < (a + 1.0) / (a + b + 2.0):
        return 0.5 * _beta(x, rest, a, b)
    return 0.5 * (1.0 - _beta(rest, x, b, a))


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularised incomplete beta function `I_x(a, b)`, with `rest = 1 - x`; Lentz's method on its continued fraction."""
    if x == 0.0:
        return 0.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)) / a
    value, above, below = 1.0, 1.0, 0.0
    for term in range(_TERMS):
        m = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        below = 1.0 / (1.0 + numerator * below or _TINY)
        above = 1.0 + numerator / above or _TINY
        value *= above * below
        if abs(1.0 - above * below) < 1e-15:
            break
    return front * (value - 1.0)


def _near_normal(z: float, degrees: float) -> float:
    """The expansion in 1 / degrees, up to the third power."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _density(t: float, degrees: float) -> float:
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    return math.exp(scale - 0.5 * (degrees + 1) * math.log1p(t * t / degrees))
