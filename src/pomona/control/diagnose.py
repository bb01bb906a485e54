"""What can go wrong in a search for the ratio, noticed and said: one sentence each, with what to change."""

from __future__ import annotations

from collections.abc import Sequence

from pomona.control.base import Answer, ControllerState

_FEW_ROUNDS = 4
_LAST_ROUNDS = 3
_NEAR_BOUND = 0.05
_THRASH = 0.10


def mask_ratios_before(state: ControllerState) -> list[float]:
    """For each round the ratio of the mask in force before it.

    It differs from the ratio in force (`prune_ratio_before`) only where a controller commits a mask of another ratio.
    """
    ratios: list[float] = []
    for one in state.rounds:
        last = state.rounds[one.index - 1].mask_prune_ratio if one.index else one.prune_ratio_before
        ratios.append(ratios[-1] if last is None else last)
    return ratios


def diagnose_search(
    state: ControllerState, answer: Answer, mask_changes: Sequence[float], *, prune_ratio_min: float, prune_ratio_max: float
) -> list[str]:
    """Warnings about a search that has ended.

    - too few rounds: fewer than 4;
    - nothing committed in 4 rounds or more;
    - no signal: the fitted curve is flat;
    - collapse: the policy's mean stayed within 5 % of the allowed range below its upper end in the last 3 rounds;
    - at the edge: the best ratio is the lowest or highest one that was tried, and the allowed range goes on beyond it;
    - mask thrash: the commits changed more entries than the change of the ratio asks for, by over 10 % of all on average.

    Args:
        state: after the last round.
        answer: what the controller chose.
        mask_changes: for each mask committed by a round, in order, the share of all factor entries that changed sides.
        prune_ratio_min: lowest ratio allowed.
        prune_ratio_max: highest ratio allowed.

    Raises:
        ValueError: there are not as many changes as rounds that committed a mask.
    """
    rounds, warnings = state.rounds, []
    moves = [
        abs(one.mask_prune_ratio - before)
        for before, one in zip(mask_ratios_before(state), rounds, strict=True)
        if one.mask_prune_ratio is not None
    ]
    if len(moves) != len(mask_changes):
        raise ValueError(f"{len(moves)} rounds committed a mask, but there are {len(mask_changes)} mask changes")
    if len(rounds) < _FEW_ROUNDS:
        warnings.append(
            f"The prune ratio rests on {len(rounds)} controller rounds in {state.total_steps} steps, which is too few to learn "
            "it; lower interval_steps or train for more steps."
        )
    elif not moves:
        warnings.append(
            f"None of {len(rounds)} rounds found a ratio that was better than the one in force beyond the noise, so it stayed at "
            f"{state.prune_ratio:.2f} during the search; add micro dev examples, or raise commit_level."
        )
    if rounds and answer.flat:
        warnings.append(
            f"The {len(rounds[0].losses_before)} micro dev examples do not tell the prune ratios apart: the answer "
            f"{answer.prune_ratio:.2f} is no better founded than its neighbours; add micro dev examples, or compare with an "
            "unpruned run."
        )
    near_top = prune_ratio_max - _NEAR_BOUND * (prune_ratio_max - prune_ratio_min)
    if len(rounds) >= _LAST_ROUNDS and all(one.mean >= near_top for one in rounds[-_LAST_ROUNDS:]):
        warnings.append(
            f"The search ran to the highest prune ratio allowed, {prune_ratio_max:.2f}, and stayed there; check the dev "
            "scores, and raise entropy or anchor if they fall."
        )
    elif answer.curve and not answer.flat:
        low, high = answer.curve[0][0], answer.curve[-1][0]
        margin = 0.01
        if answer.prune_ratio <= low + margin and low > prune_ratio_min + margin:
            warnings.append(_edge(answer.prune_ratio, "lowest", "prune_ratio_start"))
        if answer.prune_ratio >= high - margin and high < prune_ratio_max - margin:
            warnings.append(_edge(answer.prune_ratio, "highest", "prune_ratio_start"))
    if moves:
        excess = sum(change - move for change, move in zip(mask_changes, moves, strict=True)) / len(moves)
        if excess > _THRASH:
            mean_change = sum(mask_changes) / len(moves)
            warnings.append(
                f"The mask thrashes: a commit moved on average {100 * mean_change:.0f} % of the entries to the other side, "
                f"{100 * excess:.0f} % more than the change of the ratio asks for; raise interval_steps, or slow the "
                "forgetting of the activation statistics."
            )
    return warnings


def _edge(prune_ratio: float, which: str, field: str) -> str:
    return (
        f"The best prune ratio, {prune_ratio:.2f}, is the {which} one that was tried, so the true optimum may lie beyond it; "
        f"move {field} there, or raise deviation_start."
    )
