"""Diagnosis of a search for the ratio: one warning for each problem, with the setting to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from pomona.control.rounds import ControllerState, over_all
from pomona.ratios import Answer, said_ratio

_FEW_ROUNDS = 3
_LAST_ROUNDS = 3
_NEAR_BOUND = 0.05
_NEAR_EDGE = 0.01
_THRASH = 0.10
_FEW_RATIOS = 3
_CLEARED = 0.50


def _moves(state: ControllerState, first_mask: Sequence[float]) -> list[tuple[float, ...]]:
    """For each committed mask, each group's ratio minus its ratio in the previous mask; one value without groups."""
    moves: list[tuple[float, ...]] = []
    before = tuple(first_mask) or ((state.rounds[0].prune_ratio_before,) * len(state.ratios) if state.rounds else ())
    for one in state.rounds:
        if one.mask_ratios is not None:
            moves.append(tuple(after - ratio for ratio, after in zip(before, one.mask_ratios, strict=True)))
            before = one.mask_ratios
    return moves


def diagnose_search(
    state: ControllerState,
    answer: Answer,
    mask_changes: Sequence[float],
    *,
    prune_ratio_min: float,
    prune_ratio_max: float,
    first_mask: Sequence[float] = (),
    dev_check: Sequence[tuple[float, float, float]] = (),
    cleared: Sequence[float] = (),
    policy: bool = True,
) -> list[str]:
    """Warnings about a finished search.

    - too few rounds: fewer than 3; without a round, the start ratio remains;
    - no commit in 3 rounds or more;
    - no signal: the curve is flat;
    - collapse: in the last 3 rounds the search's mean, over all groups of layers, stayed within 5 % of the allowed range from its
      upper bound;
    - at the edge: the best ratio is within 5 % of the tried range from its end, and the allowed range extends beyond that end;
    - mask thrash: on average, the commits changed over 10 % of all entries more than the change of the ratio requires;
    - unrepresentative micro dev: for 3 or more ratios, the rankings of micro dev and dev disagree (Kendall's tau <= 0), and on dev
      the best ratio of micro dev costs more than the best ratio of dev, by over sqrt(2) times the largest half-width of the
      curve's intervals; a flat curve gives no ranking;
    - frequent clearing of moments: in the whole search, the commits newly pruned over half of all entries more than the growth of
      the ratio requires.

    Args:
        state: after the last round.
        answer: the controller's answer.
        mask_changes: for each mask committed by a round, in order, the share of all factor entries whose mask changed.
        prune_ratio_min: lowest ratio allowed.
        prune_ratio_max: highest ratio allowed.
        first_mask: ratios of the mask before the first round, if they differ from the ratios in force.
        dev_check: (prune ratio, mean cost on micro dev, mean cost on dev) at a few ratios at the end of the search. Lower is
            better; both costs are in the unit of the curve, up to an additive constant.
        cleared: for each mask committed by a round, in order, the share of all factor entries that it newly pruned.
        policy: whether the controller has a policy, whose settings a warning may name.

    Raises:
        ValueError: the number of changes, or of cleared shares if given, differs from the number of rounds with a commit.
    """
    moves = _moves(state, first_mask)
    if len(moves) != len(mask_changes):
        raise ValueError(f"{len(moves)} rounds committed a mask, but there are {len(mask_changes)} mask changes")
    if cleared and len(moves) != len(cleared):
        raise ValueError(f"{len(moves)} rounds committed a mask, but there are {len(cleared)} shares cleared")
    search = _Search(state, answer, moves, mask_changes, cleared, dev_check, prune_ratio_min, prune_ratio_max, policy)
    return [warning for symptom in _SYMPTOMS if (warning := symptom(search)) is not None]


@dataclass(frozen=True)
class _Search:
    """A finished search.

    `moves`: for each committed mask and each group, its ratio minus its ratio in the previous mask.
    """

    state: ControllerState
    answer: Answer
    moves: Sequence[tuple[float, ...]]
    mask_changes: Sequence[float]
    cleared: Sequence[float]
    dev_check: Sequence[tuple[float, float, float]]
    prune_ratio_min: float
    prune_ratio_max: float
    policy: bool


def _few_rounds(search: _Search) -> str | None:
    rounds = len(search.state.rounds)
    if rounds >= _FEW_ROUNDS:
        return None
    if not rounds:
        return (
            f"No controller round took place in {search.state.total_steps} steps, so nothing was learned: the prune ratio "
            f"{said_ratio(search.answer.prune_ratio)} is the start value; lower interval_steps or train for more steps."
        )
    counted = "1 controller round" if rounds == 1 else f"{rounds} controller rounds"
    return (
        f"The prune ratio rests on {counted} in {search.state.total_steps} steps, which is too few to learn it; "
        "lower interval_steps or train for more steps."
    )


def _nothing_committed(search: _Search) -> str | None:
    rounds = len(search.state.rounds)
    if rounds < _FEW_ROUNDS or search.moves:
        return None
    return (
        f"None of {rounds} rounds found a ratio significantly better than the ratio in force, which stayed at "
        f"{said_ratio(search.state.prune_ratio)} during the search; add micro dev examples"
        f"{', or raise commit_level' if search.policy else ''}."
    )


def _no_signal(search: _Search) -> str | None:
    rounds = search.state.rounds
    if not rounds or not search.answer.flat:
        return None
    return (
        f"The {len(rounds[0].losses_before)} micro dev examples show no significant difference between the prune ratios: "
        f"the answer {said_ratio(search.answer.prune_ratio)} may be no better than other ratios; add micro dev examples, or "
        "compare with an unpruned run."
    )


def _collapse(search: _Search) -> str | None:
    last, highest = search.state.rounds[-_LAST_ROUNDS:], search.prune_ratio_max
    near_top = highest - _NEAR_BOUND * (highest - search.prune_ratio_min)
    if len(last) < _LAST_ROUNDS or any(one.mean < near_top for one in last):
        return None
    return (
        f"The search moved to the highest allowed prune ratio, {said_ratio(highest)}, and stayed there; check the dev scores, and "
        f"if they fall, lower prune_ratio_max{', or raise anchor tenfold' if search.policy else ''}."
    )


def _edge(search: _Search) -> str | None:
    if search.answer.flat or _collapse(search):
        return None
    for group, (answer, low, high) in enumerate(_tried(search)):
        near = _NEAR_BOUND * (high - low)  # the answer is a mean over draws, a few of which may be elsewhere
        if answer <= low + near and low > search.prune_ratio_min + _NEAR_EDGE:
            which, beyond = "lowest", "lower"
        elif answer >= high - near and high < search.prune_ratio_max - _NEAR_EDGE:
            which, beyond = "highest", "higher"
        else:
            continue
        of = f" of group {group + 1} of the layers" if search.answer.by_group else ""
        return (
            f"The best prune ratio{of}, {said_ratio(answer)}, is the {which} ratio that was tried, so the true optimum may be "
            f"{beyond}; move prune_ratio_start there{', or raise deviation_start' if search.policy else ''}."
        )
    return None


def _tried(search: _Search) -> list[tuple[float, float, float]]:
    """(answer, lowest tried ratio, highest tried ratio) for each group of layers; one entry without groups."""
    answer = search.answer
    if not answer.by_group:
        return [(answer.prune_ratio, answer.curve[0].prune_ratio, answer.curve[-1].prune_ratio)] if answer.curve else []
    rows = [row for one in search.state.rounds for row in (one.by_group, *(candidate.by_group for candidate in one.candidates))]
    return [(one, min(ratios), max(ratios)) for one, ratios in zip(answer.ratios, zip(*rows, strict=True), strict=True)]


def _thrash(search: _Search) -> str | None:
    if not search.moves:
        return None
    asked = sum(over_all(search.state.shares, [abs(one) for one in move]) for move in search.moves) / len(search.moves)
    changed = sum(search.mask_changes) / len(search.moves)
    if changed - asked <= _THRASH:
        return None
    return (
        f"The mask thrashes: a commit changed the mask of {100 * changed:.0f}% of the entries on average, "
        f"{100 * (changed - asked):.0f}% more than the change of the ratio requires; raise interval_steps, or raise "
        "pruning.forgetting towards 1."
    )


def _unrepresentative(search: _Search) -> str | None:
    """The rankings differ, and the two best ratios differ significantly on the dev set.

    The curve's intervals give the noise of a difference on micro dev; with half as many dev examples it is sqrt(2) times as large.
    """
    check, curve = search.dev_check, search.answer.curve
    if len(check) < _FEW_RATIOS or search.answer.flat or not curve or _kendall([one[1:] for one in check]) > 0:
        return None
    on_micro_dev, on_dev = min(check, key=lambda one: one[1]), min(check, key=lambda one: one[2])
    noise = math.sqrt(2) * max(point.high - point.low for point in curve) / 2
    if on_micro_dev[2] - on_dev[2] <= noise:
        return None
    return (
        f"The micro dev examples do not represent the dev set: of {len(check)} prune ratios, micro dev ranks "
        f"{said_ratio(on_micro_dev[0])} first and dev {said_ratio(on_dev[0])}, and the rankings disagree; add micro dev examples, "
        "or draw others with another seed."
    )


def _cleared_often(search: _Search) -> str | None:
    """Many entries were pruned, revived, and pruned again.

    A newly pruned entry loses its optimizer moments, and restarts without them if it is revived. If a search only raises the ratio,
    pruned entries stay pruned and nothing is lost; only the excess counts. At one half, every second entry has lost them once.
    """
    growth = [max(0.0, sum(moves)) for moves in zip(*search.moves, strict=True)]
    if not search.cleared or (excess := sum(search.cleared) - over_all(search.state.shares, growth)) <= _CLEARED:
        return None
    return (
        f"Optimizer moments were cleared often: {len(search.moves)} commits newly pruned {100 * sum(search.cleared):.0f}% of the "
        f"entries in total, {100 * excess:.0f}% more than the growth of the ratio requires; raise interval_steps, or lower "
        "max_commit_change."
    )


_SYMPTOMS: tuple[Callable[[_Search], str | None], ...] = (
    _few_rounds,
    _nothing_committed,
    _no_signal,
    _collapse,
    _edge,
    _thrash,
    _unrepresentative,
    _cleared_often,
)


def _kendall(pairs: Sequence[Sequence[float]]) -> int:
    """Concordant minus discordant pairs, which has the sign of Kendall's tau."""
    return sum(_sign(one[0] - other[0]) * _sign(one[1] - other[1]) for one, other in combinations(pairs, 2))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
