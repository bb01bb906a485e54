"""Sign-flip permutation tests: if nothing were gained, every example's gain could as well have had the other sign.

Under that hypothesis all sign patterns of the N per-example values are equally likely. With few examples every pattern is
looked at, and the test is exact; with more, patterns are drawn. No normality is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

EXACT_UP_TO = 16
"""The largest number of examples whose patterns (2^16) are all looked at."""

DRAWS = 9_999
"""How many patterns are drawn beyond that; with the pattern that was seen, p-values are multiples of 1 / 10,000."""

_ROUNDING = 1e-12


def signed_sums(values_ND: Float64[np.ndarray, "N D"], generator: torch.Generator) -> Float64[np.ndarray, "S D"]:
    """The sums over N examples under S sign patterns, [S, D]; the first is the one that was seen, all signs +1.

    Args:
        values_ND: D values of each example, N >= 1; an example's values share their sign.
        generator: read only where N > `EXACT_UP_TO`.
    """
    n, d = values_ND.shape
    if n > EXACT_UP_TO:
        signs_SN = 1.0 - 2.0 * torch.randint(2, (DRAWS, n), generator=generator).numpy()
        return np.concatenate([values_ND.sum(axis=0, keepdims=True), signs_SN @ values_ND])
    sums_SD = np.zeros((1, d))
    for value_D in values_ND:
        sums_SD = np.concatenate([sums_SD + value_D, sums_SD - value_D])
    return sums_SD


def gain_p_value(gains: Sequence[float], generator: torch.Generator) -> float:
    """One-sided p-value of "the gains are not above zero": the share of patterns whose sum is at least the one seen.

    Args:
        gains: loss before minus loss after of each example, [N], N >= 1, finite.
        generator: read only where N > `EXACT_UP_TO`.

    Returns:
        In (0, 1]; the smallest possible value is 2^-N, and gains that are all 0 give 1.
    """
    values = np.asarray(gains, dtype=np.float64)
    sums = signed_sums(values[:, None], generator)[:, 0]
    return float(np.mean(sums >= sums[0] - _ROUNDING * np.abs(values).sum()))
