"""What the rank of a merge's result leaves out of the method's own result, over all modules."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pomona.adapters.truncated import Loss

WORTH_A_WARNING = 0.1
"""From this share of the merged update on, a loss is worth a warning."""

_ENOUGH = 0.05  # the share that may be lost at the rank that a warning names
_ROUNDING = 1e-6  # fp32 factors do not hold a matrix better than to a share of about this size


def rank_loss(losses: Mapping[str, Loss]) -> dict[str, float | str | None]:
    """What is lost, as a share of the norm of the method's own result at full rank.

    Args:
        losses: module -> what it lost; a module that is not here lost nothing. What fp32's rounding loses counts as nothing.

    Returns:
        `relative`: `sqrt(sum lost^2 / sum whole^2)` over all modules; `worst_module` and `worst`: the module that lost the largest
        share of itself, and its share; None and 0 where nothing is lost.
    """
    shares = {module: _share(loss.lost_squared, loss.whole_squared) for module, loss in losses.items()}
    worst = max(shares, key=lambda module: shares[module], default=None)
    if worst is None or shares[worst] == 0:
        return {"relative": 0.0, "worst_module": None, "worst": 0.0}
    lost_squared = sum(loss.lost_squared for module, loss in losses.items() if shares[module] > 0)
    whole_squared = sum(loss.whole_squared for loss in losses.values())
    return {"relative": math.sqrt(lost_squared / whole_squared), "worst_module": worst, "worst": shares[worst]}


def rank_warning(losses: Mapping[str, Loss], ranks: Mapping[str, int]) -> list[str]:
    """A sentence on a loss that is worth a warning, with the rank that would be enough where that is known; else none.

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
    return [f"the merge lost {percent(relative)} of its update to rank {max(ranks.values())}; {fix}"]


def percent(share: float) -> str:
    """A share in percent, to three figures."""
    return f"{100 * share:.3g}%"


def _share(lost_squared: float, whole_squared: float) -> float:
    share = math.sqrt(lost_squared / whole_squared) if whole_squared > 0 else 0.0
    return share if share > _ROUNDING else 0.0


def _enough(losses: Mapping[str, Loss], ranks: Mapping[str, int]) -> int | None:
    """The least rank for all modules at which less than 5 % is lost; None where some singular values are not known."""
    falls: dict[int, float] = {}  # rank -> by how much the squared loss falls when a module gets it
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
