from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pomona.control import Bayes, Candidate, Grasp, Layerwise, Round
from pomona.control.diagnose import diagnose_search
from pomona.control.grasp import GraspState
from pomona.ratios import Answer, CurvePoint

GRASP = Grasp(mode="two_pass", interval_steps=1)


def search(
    best: float = 0.4, rounds: int = 6, mean: float = 0.4, commits: bool = True, signal: bool = True, low: float = 0.2
) -> GraspState:
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
            reference=(0.4,),
        )
        for index in range(rounds)
    )
    return GraspState(0, 40, (1.0,), (0.4,), seen)


def test_a_healthy_search_says_nothing() -> None:
    assert GRASP.diagnose(search(), [0.02] * 6) == []


@pytest.mark.parametrize(
    ("state", "mask_changes", "words"),
    [
        (
            search(rounds=0),
            [],
            "No controller round took place in 40 steps, so nothing was learned: the prune ratio 40% is the start",
        ),
        (search(rounds=1), [0.0], "rests on 1 controller round in 40 steps, which is too few"),
        (search(rounds=2), [0.0] * 2, "rests on 2 controller rounds"),
        (search(commits=False), [], "None of 6 rounds found a ratio significantly better"),
        (search(signal=False), [0.0] * 6, "The 8 micro dev examples show no significant difference between the prune ratios"),
        (search(mean=0.78), [0.0] * 6, "moved to the highest allowed prune ratio, 80%"),
        (search(best=0.0), [0.0] * 6, "is the lowest ratio that was tried"),
        (search(best=0.9), [0.0] * 6, "is the highest ratio that was tried"),
        (search(), [0.3] * 6, "The mask thrashes: a commit changed the mask of 30% of the entries"),
    ],
)
def test_each_failure_is_one_warning(state: GraspState, mask_changes: list[float], words: str) -> None:
    warnings = GRASP.diagnose(state, mask_changes)
    assert len(warnings) == 1
    assert words in warnings[0]
    assert warnings[0].endswith(".")


@pytest.mark.parametrize("state", [search(commits=False), search(mean=0.78)])
def test_advice_names_only_settings_that_the_controller_has(state: GraspState) -> None:
    fields = {one.name for controller in (Grasp, Bayes) for one in dataclasses.fields(controller)}
    for controller in (GRASP, Bayes(mode="two_pass", interval_steps=1)):
        (warning,) = controller.diagnose(state, [0.0] * sum(one.mask_prune_ratio is not None for one in state.rounds))
        named = {word.strip(",;.") for word in warning.split()} & fields
        assert named <= {one.name for one in dataclasses.fields(controller)}
        assert named or isinstance(controller, Bayes)


def test_the_end_of_the_allowed_range_is_no_edge() -> None:
    assert GRASP.diagnose(search(best=0.0, low=0.1), [0.0] * 6) == []


def test_a_mask_that_follows_the_ratio_does_not_thrash() -> None:
    state = search()
    moved = dataclasses.replace(state.rounds[0], mask_prune_ratio=0.7, prune_ratio_after=0.7)
    state = dataclasses.replace(state, rounds=(moved, *state.rounds[1:]))
    assert GRASP.diagnose(state, [0.33, 0.33, 0.0, 0.0, 0.0, 0.0]) == []


# The micro dev set against the dev set ----------------------------------------------------------------------------------

NOISY = Answer(
    0.4,
    0.3,
    0.5,
    flat=False,
    curve=(CurvePoint(0.2, -0.01, -0.03, 0.01), CurvePoint(0.4, 0.0, 0.0, 0.0), CurvePoint(0.7, -0.02, -0.03, -0.01)),
)
"""A difference on micro dev is uncertain by up to 0.02, half the width of the widest interval, and on dev by up to 0.0283."""
AS_EXPECTED = ((0.2, 0.01, 2.51), (0.4, 0.0, 2.5), (0.7, 0.02, 2.55))


def diagnosed(dev_check: Sequence[tuple[float, float, float]] = (), cleared: Sequence[float] = (), **changes: Any) -> list[str]:
    arguments: dict[str, Any] = {"state": search(), "answer": NOISY, "mask_changes": [0.0] * 6} | changes
    return diagnose_search(**arguments, prune_ratio_min=0.1, prune_ratio_max=0.8, dev_check=dev_check, cleared=cleared)


def test_a_dev_set_that_agrees_and_few_cleared_moments_are_healthy() -> None:
    assert diagnosed(AS_EXPECTED, [0.01] * 6) == []


@pytest.mark.parametrize(
    ("dev", "first"),
    [
        ((2.47, 2.5, 2.45), "70%"),  # no pair agrees
        ((2.45, 2.5, 2.49), "20%"),  # one pair of three agrees, (0.2, 0.7)
    ],
)
def test_a_micro_dev_set_that_ranks_against_the_dev_set(dev: tuple[float, float, float], first: str) -> None:
    check = [(ratio, micro, cost) for (ratio, micro, _), cost in zip(AS_EXPECTED, dev, strict=True)]
    expected = (
        f"The micro dev examples do not represent the dev set: of 3 prune ratios, micro dev ranks 40% first and dev {first}, and "
        "the rankings disagree; add micro dev examples, or draw others with another seed."
    )
    assert diagnosed(check) == [expected]
    assert diagnosed(check[:2]) == []  # of two ratios one ranking in two is wrong by chance


@pytest.mark.parametrize(
    "dev",
    [
        (2.5, 2.528, 2.5),  # 0.4 is worse than the best by less than the noise
        (2.5, 2.5, 2.5),  # nothing told apart
        (2.52, 2.5, 2.49),  # half of the ranking is wrong, but not what decides
    ],
)
def test_a_dev_set_that_does_not_tell_the_ratios_apart_says_nothing(dev: tuple[float, float, float]) -> None:
    assert diagnosed([(ratio, micro, cost) for (ratio, micro, _), cost in zip(AS_EXPECTED, dev, strict=True)]) == []


def test_the_sharper_the_curve_the_smaller_a_difference_counts() -> None:
    check = [(0.2, 0.01, 2.5), (0.4, 0.0, 2.515), (0.7, 0.02, 2.5)]  # by 0.0150, more than 0.0141
    sharp = dataclasses.replace(
        NOISY, curve=tuple(dataclasses.replace(one, low=one.reward - 0.01, high=one.reward + 0.01) for one in NOISY.curve)
    )
    assert diagnosed(check) == []
    assert len(diagnosed(check, answer=sharp)) == 1
    assert diagnosed(check, answer=dataclasses.replace(sharp, curve=())) == []


def test_a_flat_curve_ranks_nothing() -> None:
    check = [(0.2, 0.01, 2.45), (0.4, 0.0, 2.5), (0.7, 0.02, 2.45)]
    (only,) = diagnosed(check, answer=dataclasses.replace(NOISY, flat=True))
    assert "show no significant difference between the prune ratios" in only


def test_rankings_that_agree_more_than_not_are_healthy_whatever_the_best() -> None:
    # Over four ratios 5 pairs agree and 1 does not, though the dev set has another best by far.
    check = [(0.2, 0.01, 2.3), (0.4, 0.0, 2.5), (0.6, 0.02, 2.6), (0.7, 0.03, 2.7)]
    assert diagnosed(check) == []


# Cleared moments --------------------------------------------------------------------------------------------------------


def moving(*ratios: float) -> GraspState:
    """A round for each ratio, which commits it; 0.4 is in force before."""
    state = search(rounds=len(ratios))
    rounds = tuple(dataclasses.replace(one, mask_prune_ratio=p) for one, p in zip(state.rounds, ratios, strict=True))
    return dataclasses.replace(state, rounds=rounds)


def test_commits_that_prune_and_revive_over_and_over() -> None:
    there_and_back = moving(0.5, 0.4, 0.5, 0.4, 0.5, 0.4, 0.5, 0.4, 0.5, 0.4, 0.5, 0.4)
    changes = [0.1] * 12  # no more than each move asks for: the mask does not thrash
    assert diagnosed(state=there_and_back, mask_changes=changes, cleared=[0.1, 0.0] * 6) == [
        "Optimizer moments were cleared often: 12 commits newly pruned 60% of the entries in total, 60% more than the "
        "growth of the ratio requires; raise interval_steps, or lower max_commit_change."
    ]
    assert diagnosed(state=there_and_back, mask_changes=changes, cleared=[0.08, 0.0] * 6) == []


def test_what_the_growth_of_the_ratio_prunes_for_good_does_not_count() -> None:
    growing = moving(0.5, 0.6, 0.7, 0.8)  # 0.4 in all
    changes = [0.2] * 4
    assert diagnosed(state=growing, mask_changes=changes, cleared=[0.2] * 4) == []  # 0.8 - 0.4
    assert "80% of the entries" not in "".join(diagnosed(state=growing, mask_changes=changes))
    (warning,) = diagnosed(state=growing, mask_changes=changes, cleared=[0.23] * 4)
    assert "92% of the entries in total, 52% more than" in warning
    shrinking = moving(0.3, 0.2, 0.1)
    (warning,) = diagnosed(state=shrinking, mask_changes=[0.1] * 3, cleared=[0.2] * 3)
    assert "60% more than" in warning


def test_shares_cleared_must_belong_to_commits() -> None:
    with pytest.raises(ValueError, match="6 rounds committed a mask, but there are 5 shares cleared"):
        diagnosed(cleared=[0.0] * 5)


def test_changes_must_belong_to_commits() -> None:
    with pytest.raises(ValueError, match="6 rounds committed a mask, but there are 5 mask changes"):
        GRASP.diagnose(search(), [0.0] * 5)


# Groups of layers ---------------------------------------------------------------------------------------------------------


def by_layer(*commits: tuple[float, float]) -> tuple[Layerwise, GraspState]:
    """A search of two groups that begins at 0.4 and commits these ratios, on losses that the first group's ratio raises."""
    controller = Layerwise(groups=2, mode="two_pass", interval_steps=1, commit_level=0, max_commit_change=1)
    state = controller.start(0, len(commits))

    def losses(ratios: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(1 + 0.01 * i + ratios[0] for i in range(8))

    for step, ratios in enumerate(commits, start=1):
        before = state.rounds[-1].by_group if state.rounds else (0.4, 0.4)
        seen = Round(
            index=step - 1,
            step=step,
            losses_before=losses(before),
            candidates=tuple(Candidate(sum(one) / 2, losses(one), 0.1, 0.01, one) for one in (ratios, (0.5, 0.3), (0.35, 0.3))),
            prune_ratio_before=sum(before) / 2,
            prune_ratio_after=sum(ratios) / 2,
            mask_prune_ratio=sum(ratios) / 2,
            mean=0.4,
            deviation=0.1,
            reference=before,
            by_group=ratios,
        )
        state = dataclasses.replace(state, rounds=(*state.rounds, seen))
    return controller, state


def test_groups_that_move_apart_do_not_thrash() -> None:
    """The mean stays, and each commit asks for as many changes as it made: 0.2, 0.4 and 0.4."""
    controller, state = by_layer((0.6, 0.2), (0.2, 0.6), (0.6, 0.2))
    assert not [one for one in controller.diagnose(state, [0.2, 0.4, 0.4]) if "thrashes" in one]
    assert [one for one in controller.diagnose(state, [0.4, 0.5, 0.5]) if "thrashes" in one]


def test_what_a_group_prunes_for_good_does_not_count() -> None:
    controller, state = by_layer((0.7, 0.2), (0.8, 0.1), (0.8, 0.1))  # one group grows by 0.4, which is 0.2 of all
    assert not [one for one in controller.diagnose(state, [0.2] * 3, cleared=[0.23] * 3) if "cleared" in one]
    assert [one for one in controller.diagnose(state, [0.2] * 3, cleared=[0.24] * 3) if "cleared" in one]


def test_a_group_whose_ratio_is_at_the_edge_of_the_tried_range_is_named() -> None:
    controller, state = by_layer((0.3, 0.6), (0.5, 0.6), (0.35, 0.2))
    (warning,) = (one for one in controller.diagnose(state, [0.1] * 3) if "true optimum may be" in one)
    assert "The best prune ratio of group 1 of the layers, 30%, is the lowest ratio that was tried" in warning
