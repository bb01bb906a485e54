"""The loss of a merge by the truncation to a rank, relative to the method's full-rank result, over all modules."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pomona.adapters.truncated import Loss
from pomona.errors import spoken

WORTH_A_WARNING = 0.1
"""From this share of the merged update on, a loss is worth a warning."""

_ENOUGH = 0.05  # largest loss at the rank that a warning recommends
_ROUNDING = 1e-6  # fp32 factors represent a matrix up to a relative error of about this size


def rank_loss(losses: Mapping[str, Loss]) -> dict[str, float | str | None]:
    """The loss as a share of the norm of the method's full-rank result.

    Args:
        losses: module -> its loss; other modules lost nothing. A loss by fp32's rounding counts as 0.

    Returns:
        `relative`: `sqrt(sum lost^2 / sum whole^2)` over all modules; `worst_module` and `worst`: the module with the
        largest relative loss, and its loss; None and 0 without a loss.
    """
    shares = {module: _share(loss.lost_squared, loss.whole_squared) for module, loss in losses.items()}
    worst = max(shares, key=lambda module: shares[module], default=None)
    if worst is None or shares[worst] == 0:
        return {"relative": 0.0, "worst_module": None, "worst": 0.0}
    lost_squared = sum(loss.lost_squared for module, loss in losses.items() if shares[module] > 0)
    whole_squared = sum(loss.whole_squared for loss in losses.values())
    return {"relative": math.sqrt(lost_squared / whole_squared), "worst_module": worst, "worst": shares[worst]}


def rank_warning(losses: Mapping[str, Loss], ranks: Mapping[str, int]) -> list[str]:
    """A warning about a large loss, with a sufficient rank if it is known; empty for a small loss.

    Args:
        losses: as for `rank_loss`.
        ranks: module -> the rank of its result.
    """
    relative = rank_loss(losses)["relative"]
    assert isinstance(relative, float)
    if relative < WORTH_A_WARNING:
        return []
    enough = _enough(losses, ranks)
    fix = "a higher rank (--rank) loses less" if enough is None else f"rank {enough} (--rank {enough}) loses less than 5%"
    return [spoken(f"the merge lost {percent(relative)} of its update to rank {max(ranks.values())}; {fix}")]


def percent(share: float) -> str:
    """A share in percent, to three figures."""
    return f"{100 * share:.3g}%"


def _share(lost_squared: float, whole_squared: float) -> float:
    share = math.sqrt(lost_squared / whole_squared) if whole_squared > 0 else 0.0
    return share if share > _ROUNDING else 0.0


def _enough(losses: Mapping[str, Loss], ranks: Mapping[str, int]) -> int | None:
    """The least common rank with a loss below 5 %; None if some singular values are unknown."""
    falls: dict[int, float] = {}  # rank -> decrease of the squared loss if a module gets this rank
    for module, loss in losses.items():
        if loss.rest is None:
            return None
        for rank, value in enumerate(loss.rest, start=ranks[module] + 1):
            falls[rank] = falls.get(rank, 0.0) + value * value
    allowed = _ENOUGH**2 * sum(loss.whole_squared for loss in losses.values())
    left = 0.0
    for rank in sorted(falls, reverse=True):  # from the highest rank down: small values first
        left += falls[rank]
        if left >= allowed:
            return max(rank, *ranks.values())
    return None
