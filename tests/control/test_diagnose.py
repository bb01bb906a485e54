from __future__ import annotations

import dataclasses

import pytest

from pomona.control import Candidate, ControllerState, Grasp, Round

GRASP = Grasp(mode="two_pass", interval_steps=1)


def search(
    best: float = 0.4, rounds: int = 6, mean: float = 0.4, commits: bool = True, signal: bool = True, low: float = 0.2
) -> ControllerState:
    """Noiseless rounds over the same ratios, each committing 0.4 again; without signal the examples contradict each other."""
    ratios = (low, 0.4, 0.7)

    def losses(p: float) -> tuple[float, ...]:
        sign = [1.0] * 8 if signal else [1.0, -1.0] * 4
        return tuple(2 + s * (p - best) ** 2 for s in sign)

    seen = tuple(
        Round(
            index=index,
            step=index + 1,
            losses_before=losses(0.4),
            candidates=tuple(Candidate(p, losses(p), 0.0, 1.0) for p in ratios),
            prune_ratio_before=0.4,
            prune_ratio_after=0.4,
            mask_prune_ratio=0.4 if commits else None,
            mean=mean,
            deviation=0.1,
        )
        for index in range(rounds)
    )
    return ControllerState(0, 40, mean, 0.1, 0.4, seen)


def test_a_healthy_search_says_nothing() -> None:
    assert GRASP.diagnose(search(), [0.02] * 6) == []


@pytest.mark.parametrize(
    ("state", "mask_changes", "words"),
    [
        (search(rounds=0), [], "rests on 0 controller rounds in 40 steps, which is too few"),
        (search(rounds=3), [0.0] * 3, "rests on 3 controller rounds"),
        (search(commits=False), [], "None of 6 rounds found a ratio that was better"),
        (search(signal=False), [0.0] * 6, "The 8 micro dev examples do not tell the prune ratios apart"),
        (search(mean=0.78), [0.0] * 6, "ran to the highest prune ratio allowed, 0.80"),
        (search(best=0.0), [0.0] * 6, "The best prune ratio, 0.20, is the lowest one that was tried"),
        (search(best=0.9), [0.0] * 6, "The best prune ratio, 0.70, is the highest one that was tried"),
        (search(), [0.3] * 6, "The mask thrashes: a commit moved on average 30 % of the entries"),
    ],
)
def test_each_failure_is_one_warning(state: ControllerState, mask_changes: list[float], words: str) -> None:
    warnings = GRASP.diagnose(state, mask_changes)
    assert len(warnings) == 1
    assert words in warnings[0]
    assert warnings[0].endswith(".")


def test_the_end_of_the_allowed_range_is_no_edge() -> None:
    assert GRASP.diagnose(search(best=0.0, low=0.1), [0.0] * 6) == []


def test_a_mask_that_follows_the_ratio_does_not_thrash() -> None:
    state = search()
    moved = dataclasses.replace(state.rounds[0], mask_prune_ratio=0.7, prune_ratio_after=0.7)
    state = dataclasses.replace(state, rounds=(moved, *state.rounds[1:]))
    assert GRASP.diagnose(state, [0.33, 0.33, 0.0, 0.0, 0.0, 0.0]) == []


def test_changes_must_belong_to_commits() -> None:
    with pytest.raises(ValueError, match="6 rounds committed a mask, but there are 5 mask changes"):
        GRASP.diagnose(search(), [0.0] * 5)
