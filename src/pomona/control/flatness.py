"""Whether the prune ratios that a search tried are indistinguishable.

Axes: N micro dev examples, S sign patterns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

from pomona.control.scaled import unit, within_noise
from pomona.control.sign_flip import signed_sums
from pomona.control.within_rounds import RANK_TOLERANCE, compared_within_rounds, parts

Array = np.ndarray


def is_flat(
    prune_ratios: Sequence[Sequence[float]], losses: Sequence[Sequence[Sequence[float | None]]], generator: torch.Generator
) -> bool:
    """Whether the loss as a parabola in the ratio is within the noise of the examples.

    The spread (highest minus lowest fitted mean loss over what was tried) is compared with the spreads that arise when each
    example's whole curve is given a random sign: were no ratio better than another, these would be as likely as the one seen.
    Flat where more than 5 % of them reach it. Choosing the best and the worst ratio after the fact is thereby allowed for. With
    fewer than 6 examples no curve can pass. The curve is a line where the ratios do not identify a parabola; it is flat where no
    example saw two ratios in one round, or the ratio changed no loss.

    Args:
        prune_ratios: for each round the ratios that were measured.
        losses: for each round and ratio the loss of each example, [N], None where it was not seen; the same N examples in every
            round.
        generator: read only where N > 16.
    """
    ratios = [ratio for one in prune_ratios for ratio in one]
    if not ratios or max(ratios) - min(ratios) < RANK_TOLERANCE:
        return True
    scaled = [unit(np.asarray(one, dtype=np.float64), min(ratios), max(ratios)) for one in prune_ratios]
    compared = compared_within_rounds(losses, [np.stack([u, u * u], axis=1) for u in scaled])
    if compared is None:
        return True
    for degree in (2, 1):
        coefficients_ND = parts(compared.y_NM, compared.X_NMD[..., :degree])
        if coefficients_ND is not None:
            return within_noise(_spread(signed_sums(coefficients_ND, generator)))
    return True


def _spread(coefficients_SD: Float64[Array, "S D"]) -> Float64[Array, " S"]:
    """Highest minus lowest value over [-1, 1] of each `slope u + bend u^2`; of lines where D is 1."""
    slope_S = coefficients_SD[:, 0]
    bend_S = coefficients_SD[:, 1] if coefficients_SD.shape[1] == 2 else np.zeros_like(slope_S)
    bent = bend_S != 0
    vertex_S = np.where(bent, np.clip(-slope_S / np.where(bent, 2 * bend_S, 1.0), -1.0, 1.0), 1.0)
    values = np.stack([u * slope_S + u * u * bend_S for u in (-1.0, 1.0, vertex_S)])
    return values.max(axis=0) - values.min(axis=0)
